"""Fit the model to the training rows.

Reads params.yaml and data/prepared/; writes models/trained/.
"""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from stages.base.errors import UserError
from stages.base.files import (
    HISTORY,
    PREPARED,
    STATISTICS,
    TRAINED,
    WEIGHTS,
    flush,
    write_csv,
)
from stages.base.outputs import output_folder
from stages.base.params import TrainParams, load_params
from stages.base.process import run
from stages.base.progress import Progress
from stages.model.device import choose_device, set_numerics
from stages.model.model import Model
from stages.rows.split import Split, Statistics, read_statistics
from stages.training.batches import ScaledRows, ScaledSplit, batches, block_size, load_splits
from stages.training.checkpoint import History, State
from stages.training.fingerprint import code_digest, fingerprint
from stages.training.gradient import backward, mean_loss
from stages.training.lbfgs import LBFGS
from stages.training.ranks import Ranks, join_ranks, start_ranks
from stages.training.resume import Resume, resumable

Loss = Callable[..., Tensor]

LOSSES: dict[str, Loss] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}
MAX_HISTORY_ROWS = 1000


def main() -> None:
    start_ranks("stages.train")
    params = load_params()
    training, validation = Split(PREPARED / "train.parquet"), Split(PREPARED / "validation.parquet")
    set_numerics(params.train.numerics)
    device = choose_device(params.device, getattr(torch, training.dtype))
    model = build_model(params.train, training, read_statistics(training)).to(device)
    with join_ranks() as ranks:
        digests = fingerprint(params.train, device, [training.path, validation.path, STATISTICS])
        if ranks.num_ranks > 1:
            ranks.require_equal(code_digest())
            ranks.require_equal(digests)
        tables = load_splits(training, validation, model, ranks)
        with resumable(digests, ranks, params.train.epochs) as resume:
            history = train(params.train, model, *tables, ranks, resume)
            if ranks.rank > 0:
                return
            with output_folder(TRAINED) as folder:
                (folder / WEIGHTS.name).write_bytes(model.to_bytes(device))
                names = ["epoch", "train_loss", "validation_loss"]
                write_csv(folder / HISTORY.name, names, thin(history))
            flush(TRAINED)
            resume.end(TRAINED)
    print(
        f"train: {history[-1][0]} epochs on {device}, {training.num_rows} rows;"
        f" learned {model.describe()}"
    )


def build_model(params: TrainParams, training: Split, statistics: Statistics) -> Model:
    """A model with initial weights and, with ``standardize``, the training rows' units."""
    torch.manual_seed(params.seed)
    dtype = getattr(torch, training.dtype)
    try:
        names = training.features, training.target
        model = Model(*names, params.hidden, dtype, statistics.categories)
    except RuntimeError:
        raise UserError(
            "train: the network does not fit into memory. Lower `train.hidden`."
        ) from None
    if params.standardize:
        model.standardize_by(statistics)
    return model


def train(
    params: TrainParams,
    model: Model,
    training: ScaledSplit,
    validation: ScaledSplit,
    ranks: Ranks,
    resume: Resume,
) -> History:
    """Train for ``params.epochs``; with ``patience``, stop early and keep the best network.

    Stopping and resuming changes no bit of the result.

    Returns:
        After each epoch its number, the mean loss of its steps, each before its update, and the
        mean loss of the validation rows; with ``standardize`` these are losses of z-scores.

    Raises:
        UserError: If the loss is no longer finite.
    """
    loss_function = LOSSES[params.loss]
    parameters = list(model.network.parameters())
    optimizer = build_optimizer(params, parameters)
    size = block_size(len(model.features), params.hidden)

    def loss_of(rows: ScaledRows) -> Tensor:
        progress.add(rows.num_rows * ranks.num_ranks)
        predictions = model.network(rows.inputs)  # forward pass
        return loss_function(predictions, rows.targets)

    def step(batch: ScaledSplit | ScaledRows) -> float:
        def closure() -> float:  # lbfgs calls it several times in a step
            optimizer.zero_grad()
            return backward(loss_of, batch.blocks(size), parameters, ranks)

        return optimizer.step(closure)

    state = State(model.network, optimizer)
    resume.restore(state)
    num_rows = training.num_rows + validation.num_rows
    progress = Progress(
        "train", params.epochs * num_rows, state.epoch * num_rows, is_shown=ranks.rank == 0
    )
    with progress:
        for epoch in range(state.epoch, params.epochs):
            if params.patience and epoch > state.best_epoch + params.patience:
                break
            progress.label = (
                f"train: epoch {epoch + 1} of {params.epochs}{last_losses(state.history)}"
            )
            for batch in batches(training, params.batch_size, params.seed, epoch, state.step):
                state.total_loss += step(batch) * batch.num_rows
                state.step += 1
                resume.save_if_due(state)
            validation_loss = mean_loss(loss_of, validation.blocks(size), ranks)
            state.end_epoch(training.num_rows, validation_loss)
            progress.update(state.epoch * num_rows)
            require_finite(state.history[-1], params)
            if (
                params.patience
                and validation_loss is not None
                and validation_loss < state.best_loss
            ):
                state.best_loss, state.best_epoch = validation_loss, epoch
                state.best_network = copy.deepcopy(model.network.state_dict())
    resume.save_if_due(state, is_last=True)
    if state.best_network:
        model.network.load_state_dict(state.best_network)
    require_finite((params.epochs, *(p.abs().max().item() for p in parameters)), params)
    return state.history


def build_optimizer(params: TrainParams, parameters: list[nn.Parameter]) -> optim.Optimizer:
    """One step of lbfgs is one iteration, with a line search from the learning rate on."""
    match params.optimizer:
        case "sgd":
            return optim.SGD(parameters, lr=params.lr)
        case "adam":
            # Fused: the other implementations take square roots by MKL, whose bits are the CPU's.
            return optim.Adam(parameters, lr=params.lr, fused=True)
        case "lbfgs":
            return LBFGS(parameters, lr=params.lr)


def require_finite(epoch_and_values: Sequence[float | None], params: TrainParams) -> None:
    """Raise UserError if training has diverged."""
    epoch, *values = epoch_and_values
    if not all(value is None or math.isfinite(value) for value in values):
        units = "" if params.standardize else ", or set `train.standardize` to true"
        raise UserError(
            f"train: diverged in epoch {epoch}: the loss is no longer finite. Lower `train.lr`"
            f" (now {params.lr:g}){units}."
        )


def last_losses(history: History) -> str:
    """The last epoch's, in words."""
    return "".join(
        f", {name} {loss:.4g}"
        for _, *values in history[-1:]
        for name, loss in zip(("loss", "validation loss"), values, strict=True)
        if loss is not None
    )


def thin(history: History) -> History:
    """At most 1,000 rows of the history, at even distances, with the last one."""
    stride = math.ceil(len(history) / MAX_HISTORY_ROWS)
    return [row for row in history if row[0] % stride == 0 or row[0] == len(history)]


if __name__ == "__main__":
    run(main)

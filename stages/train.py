"""Train the network on the training rows: a textbook training loop, with its five moves numbered.

Run it with `python -m stages.train`; `dvc repro` does the same when an input has changed. It reads
params.yaml and data/prepared/, and writes models/trained/.
"""

import copy
import math
from itertools import islice

import torch
from torch import Tensor

from stages.base.errors import UserError
from stages.base.files import (
    HISTORY,
    PREPARED,
    STATISTICS,
    TRAINED,
    WEIGHTS,
    write_aside,
    write_csv,
)
from stages.base.outputs import output_folder
from stages.base.params import TrainParams, load_params
from stages.base.process import require_same_inputs, run
from stages.base.progress import Progress
from stages.model.device import choose_device, set_numerics
from stages.model.model import Model
from stages.network import LOSSES, build_optimizer, set_learning_rate
from stages.rows.split import Split, Statistics, read_statistics
from stages.training.batches import ScaledRows, batches, block_size, load_rows
from stages.training.checkpoint import Checkpoint, History, State
from stages.training.gradient import mean_loss
from stages.training.probe import try_network
from stages.training.ranks import Ranks, join_ranks, start_ranks

HISTORY_COLUMNS, MAX_HISTORY_ROWS = ["epoch", "train_loss", "validation_loss"], 1000


def main() -> None:
    start_ranks("stages.train")
    params = load_params()
    training, validation = Split(PREPARED / "train.parquet"), Split(PREPARED / "validation.parquet")
    set_numerics(params.train.numerics)
    device = choose_device(params.device, getattr(torch, training.dtype))
    model = build_model(params.train, training, read_statistics(training))
    not_portable = try_network(model)
    model.to(device)
    with join_ranks() as ranks:
        data = [training.path, validation.path, STATISTICS]
        checkpoint = Checkpoint(params.train, device, data, ranks)
        TRAINED.parent.mkdir(exist_ok=True)
        rows = [load_rows(split, model, TRAINED.parent) for split in (training, validation)]
        require_same_inputs()  # stop if they changed while they were read and hashed
        with checkpoint:  # remembers signals; `save_if_due` acts on them
            history = train(params.train, model, rows[0], rows[1], ranks, checkpoint)
        if ranks.rank > 0:
            return
        with output_folder(TRAINED) as folder:
            write_aside(folder / WEIGHTS.name, model.to_bytes(device, not_portable))
            write_csv(folder / HISTORY.name, HISTORY_COLUMNS, thin(history))
        checkpoint.delete()
    print(
        f"train: {history[-1][0]} epochs on {device}, {training.num_rows} rows;"
        f" learned {model.describe()}"
    )
    if not_portable:
        print(f"train: the bits repeat on this kind of CPU only: {', '.join(not_portable)}")


def train(
    params: TrainParams,
    model: Model,
    training: ScaledRows,
    validation: ScaledRows,
    ranks: Ranks,
    checkpoint: Checkpoint,
) -> History:
    """Train for ``params.epochs``; with ``patience``, stop early and keep the best network.

    A training that is stopped and resumed gives the same bits as one that is not.

    Returns:
        One row per epoch: its number, the mean loss of its steps (each computed before the step's
        update), and the mean loss of the validation rows. With ``standardize`` these are losses of
        z-scores.

    Raises:
        UserError: If the loss is no longer finite.
    """
    network = model.network  # works on z-scores; the model adds the table's own units
    parameters = [*network.parameters()]
    loss_function = LOSSES[params.loss]
    optimizer = build_optimizer(params, parameters)
    size = block_size(network, len(model.features))
    device = model.input_mean.device
    state = State(network, optimizer)
    checkpoint.restore(state)  # continue from the checkpoint, if there is one
    epoch_rows = training.num_rows + validation.num_rows
    progress = Progress(
        "train", params.epochs * epoch_rows, state.epoch * epoch_rows, is_shown=ranks.rank == 0
    )

    def block_loss(block: ScaledRows) -> Tensor:
        progress.add(block.num_rows * ranks.num_ranks)
        predictions = network(block.inputs)  # 1. forward pass
        return loss_function(predictions, block.targets)  # 2. loss

    def loss_of(rows: ScaledRows) -> Tensor:
        return mean_loss(block_loss, rows.blocks(size), parameters, ranks)

    with progress:
        for epoch in range(state.epoch, params.epochs):
            if params.patience and epoch > state.best_epoch + params.patience:
                break
            losses = last_losses(state.history)
            progress.label = f"train: epoch {epoch + 1} of {params.epochs}{losses}"
            set_learning_rate(optimizer, params, epoch)
            network.train()
            steps = batches(training, params.batch_size, params.seed, epoch, device)
            for batch in islice(steps, state.step, None):  # without those before the checkpoint
                # `step` calls the closure, L-BFGS several times: so the order is 3, 1, 2, 4, 5.
                def closure() -> float:
                    optimizer.zero_grad()  # 3. clear the gradients
                    loss = loss_of(batch)  # forward pass and loss, block by block
                    loss.backward()  # 4. backpropagation
                    return loss.item()

                loss = optimizer.step(closure)  # 5. gradient descent
                state.total_loss += loss * batch.num_rows
                state.step += 1
                checkpoint.save_if_due(state)  # every few seconds; after a signal, ends the process
            network.eval()
            validation_loss = None
            if validation.num_rows:
                with torch.inference_mode():
                    validation_loss = loss_of(validation).item()
                if params.patience and validation_loss < state.best_loss:
                    state.best_loss, state.best_epoch = validation_loss, epoch
                    state.best_network = copy.deepcopy(network.state_dict())
            state.end_epoch(training.num_rows, validation_loss)
            progress.update(state.epoch * epoch_rows)
            require_finite(params, *state.history[-1])
    if state.best_network:
        network.load_state_dict(state.best_network)
    largest = [parameter.abs().max().item() for parameter in parameters]
    require_finite(params, params.epochs, *largest)  # the last step may have diverged
    return state.history


def build_model(params: TrainParams, training: Split, statistics: Statistics) -> Model:
    """Return a model with initial weights; with ``standardize``, it scales by the training rows."""
    torch.manual_seed(params.seed)
    dtype = getattr(torch, training.dtype)
    model = Model(training.features, training.target, params, dtype, statistics.categories)
    if params.standardize:
        model.standardize_by(statistics)
    return model


def last_losses(history: History) -> str:
    """Return the last epoch's losses as text, such as ``, loss 0.12, validation loss 0.15``."""
    return "".join(
        f", {name} {loss:.4g}"
        for _, *losses in history[-1:]
        for name, loss in zip(("loss", "validation loss"), losses, strict=True)
        if loss is not None
    )


def thin(history: History) -> History:
    """Keep at most 1,000 rows of the history, evenly spaced, always with the last one."""
    stride = math.ceil(len(history) / MAX_HISTORY_ROWS)
    return [row for row in history if row[0] % stride == 0 or row[0] == len(history)]


def require_finite(params: TrainParams, epoch: int, *values: float | None) -> None:
    """Raise UserError if a value is infinite or NaN: the training has diverged."""
    if not all(value is None or math.isfinite(value) for value in values):
        other_cure = "" if params.standardize else ", or set `train.standardize` to true"
        raise UserError(
            f"train: diverged in epoch {epoch}: the loss is no longer finite. Lower `train.lr`"
            f" (now {params.lr:g}){other_cure}."
        )


if __name__ == "__main__":
    run(main)

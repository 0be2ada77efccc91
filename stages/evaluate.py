"""Score the trained model, and the best linear model beside it.

Run by `dvc repro`, or alone by `python -m stages.evaluate`. Reads params.yaml, data/prepared/ and
models/trained/; writes metrics/.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.base.errors import UserError
from stages.base.files import (
    EVALUATION,
    FIGURE,
    HISTORY,
    PLOTS,
    PREDICTIONS,
    PREPARED,
    WEIGHTS,
    to_json,
    write_aside,
)
from stages.base.params import TrainParams, load_params
from stages.base.process import require_same_inputs, run
from stages.base.threads import in_order
from stages.model.device import choose_device, set_numerics
from stages.model.model import Model, formula
from stages.rows.predictions import origin_of, write_predictions
from stages.rows.split import Split, read_statistics
from stages.scoring.figure import write_figure
from stages.scoring.least_squares import LeastSquares, least_squares
from stages.scoring.scores import Predict, scores

LOSS_LABELS = {
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "huber": "mean Huber loss",
}


def main() -> None:
    params = load_params()
    set_numerics(params.train.numerics)
    training, test = Split(PREPARED / "train.parquet"), Split(PREPARED / "test.parquet")
    statistics = read_statistics(training)
    model = Model.load(WEIGHTS)
    device = choose_device(params.device, model.dtype)
    model.to(device).eval()

    def predict(inputs: Tensor) -> Tensor:
        return model(inputs.to(device)).cpu()

    if [*model.features, model.target] != [*training.features, training.target]:
        raise UserError(f"{WEIGHTS} was trained on other columns. Run `dvc repro`.")
    optimum = least_squares(training, statistics)
    scored, name = (test, "test") if test.num_rows else (training, "train")
    compared = scores(scored, {"model": predict, "least_squares": optimum.predict})
    evaluation: dict[str, Any] = {
        "least_squares": describe(model.features, optimum) | {name: compared["least_squares"]},
        name: compared["model"],
    }
    if test.num_rows:
        evaluation["train"] = scores(training, {"model": predict})["model"]
    line = model.line()
    if line:
        evaluation["learned"] = dict(zip(coefficient_names(model.features), line, strict=True))

    PLOTS.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=PLOTS.parent, prefix=".") as name_of_draft:
        folder = Path(name_of_draft)
        fit = sample_fit(scored, predict, optimum, params.evaluate.plot_rows)
        fit.to_csv(folder / "fit.csv", index=False, lineterminator="\n")
        write_figure(folder, read_history(), fit, loss_label(params.train, model.target))
        text = to_json(evaluation)
        origin = origin_of(folder / FIGURE.name, text)
        draft = folder / PREDICTIONS.name
        write_predictions(draft, predictions_of(scored, predict), scored.dtype, origin)
        require_same_inputs()
        draft.replace(PREDICTIONS)
        for path in folder.iterdir():
            path.replace(PLOTS / path.name)
        write_aside(EVALUATION, text)
    kind = "test" if test.num_rows else "training"
    best = formula(model.features, model.target, optimum.coefficients.tolist())
    print(
        f"evaluate: {scored.num_rows} {kind} rows: {model.describe()},"
        f" RMSE {compared['model']['rmse']:.4g}; exact least squares: {best},"
        f" RMSE {compared['least_squares']['rmse']:.4g}"
    )


def describe(features: list[str], optimum: LeastSquares) -> dict[str, Any]:
    """List coefficients and standard errors; only the rank if columns depend on each other."""
    num_columns = 1 + len(features)
    if optimum.rank < num_columns:
        return {"columns": num_columns, "rank": optimum.rank, "rank_deficient": True}
    names = coefficient_names(features)
    estimate = {"coefficients": dict(zip(names, optimum.coefficients.tolist(), strict=True))}
    if optimum.std_errors is not None:
        estimate["std_errors"] = dict(zip(names, optimum.std_errors.tolist(), strict=True))
    return estimate


def coefficient_names(features: list[str]) -> list[str]:
    """Name the intercept and the slopes: b and m for one feature, else `intercept` and features."""
    return ["b", "m"] if len(features) == 1 else ["intercept", *features]


def predictions_of(split: Split, predict: Predict) -> Iterator[NDArray[np.floating]]:
    """Yield the predictions for all rows of ``split``, block by block, shape ``(rows, 1)``."""

    @torch.inference_mode()  # here, because it applies to one thread
    def predict_block(block: int) -> NDArray[np.floating]:
        return predict(torch.from_numpy(split.read(block))[:, :-1]).numpy()

    return in_order(predict_block, range(split.num_blocks))


def sample_fit(
    split: Split, predict: Predict, optimum: LeastSquares, num_rows: int
) -> pd.DataFrame:
    """Sample rows for the plots: ``num_rows`` rows of ``split`` at even distances, or all.

    ``x`` is the feature if there is only one, else the prediction; rows are sorted by ``x``. Every
    row repeats the names of the axes, because DVC's plots can read them only there. `<` is
    replaced in the names: it could end the script in DVC's page.
    """
    num_rows = min(num_rows, split.num_rows)
    chosen = np.arange(num_rows) * split.num_rows // num_rows
    block_numbers, positions = np.divmod(chosen, split.block_rows)
    blocks = [split.read(b)[positions[block_numbers == b]] for b in np.unique(block_numbers)]
    rows = torch.from_numpy(np.concatenate(blocks))
    inputs, actual = rows[:, :-1], rows[:, -1].tolist()
    with torch.inference_mode():
        predicted = predict(inputs)[:, 0].tolist()
    has_one_feature = len(split.features) == 1
    x_label = split.features[0] if has_one_feature else f"{split.target}, predicted"
    fit = pd.DataFrame(
        {
            "x": inputs[:, 0].tolist() if has_one_feature else predicted,
            "actual": actual,
            "predicted": predicted,
            "least_squares": optimum.predict(inputs)[:, 0].tolist() if has_one_feature else None,
            "residual": np.subtract(actual, predicted),
            "x_label": x_label.replace("<", "‹"),
            "target": split.target.replace("<", "‹"),
        }
    )
    return fit.sort_values("x", kind="stable")


def read_history() -> pd.DataFrame:
    """Read the losses after each epoch, which `train` has written."""
    if not HISTORY.exists():
        raise UserError(f"{HISTORY} does not exist. Run `dvc repro`.")
    return pd.read_csv(HISTORY)


def loss_label(params: TrainParams, target: str) -> str:
    """Name the loss and its unit."""
    return f"{LOSS_LABELS[params.loss]} of {'z-scores' if params.standardize else target}"


if __name__ == "__main__":
    run(main)

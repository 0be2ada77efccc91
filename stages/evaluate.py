"""Score the trained model by inference, beside the best linear model there is.

Reads params.yaml, data/prepared/ and models/trained/; writes metrics/.
"""

from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.parts.device import choose_device, set_numerics
from stages.parts.errors import UserError
from stages.parts.files import (
    EVALUATION,
    PLOTS,
    PREPARED,
    WEIGHTS,
    output_folder,
    write_csv,
    write_json,
)
from stages.parts.least_squares import LeastSquares, least_squares
from stages.parts.model import Model, formula
from stages.parts.params import load_params
from stages.parts.process import run, run_module
from stages.parts.recorded import forget_recorded
from stages.parts.scores import Predict, scores
from stages.parts.split import Split, read_statistics

FIGURE = "stages.parts.figure"
# Read by numpy and matplotlib when they are imported: kernels that every x86-64 CPU has, for the
# products of coordinates, and a folder for their list of fonts in the project, not in the home.
FIGURE_ENVIRONMENT = {"OPENBLAS_CORETYPE": "Prescott", "MPLCONFIGDIR": ".cache/matplotlib"}
FIT_COLUMNS = ["x", "actual", "predicted", "exact", "residual", "x_label", "target"]


def main() -> None:
    params = load_params()
    forget_recorded()
    set_numerics(params.train.numerics)
    training, test = Split(PREPARED / "train.parquet"), Split(PREPARED / "test.parquet")
    statistics = read_statistics(training)
    model = Model.load(WEIGHTS)
    device = choose_device(params.device, model.dtype)
    model.to(device)

    def predict(inputs: Tensor) -> Tensor:
        return model(inputs.to(device)).cpu()

    if [*model.features, model.target] != [*training.features, training.target]:
        raise UserError(f"{WEIGHTS} was trained on other columns. Run `dvc repro`.")
    exact = least_squares(training, statistics)
    scored = test if test.num_rows else training
    both = scores(scored, {"model": predict, "least_squares": exact.predict})
    evaluation: dict[str, dict[str, Any]] = {
        "least_squares": both["least_squares"],
        "exact": exact_coefficients(model.features, exact),
    }
    if test.num_rows:
        evaluation["test"] = both["model"]
        evaluation["train"] = scores(training, {"model": predict})["model"]
    else:
        evaluation["train"] = both["model"]
    line = model.line()
    if line:
        evaluation["learned"] = dict(zip(coefficient_names(model.features), line, strict=True))

    with output_folder(PLOTS, keeps_others=True) as folder:
        fit = sample_fit(scored, predict, exact, params.evaluate.plot_rows)
        write_csv(folder / "fit.csv", FIT_COLUMNS, fit)
        if not run_module(FIGURE, folder, FIGURE_ENVIRONMENT):
            raise UserError("evaluate: the figure was not drawn.")
        write_json(EVALUATION, evaluation)
    kind = "test" if test.num_rows else "training"
    best = formula(model.features, model.target, exact.coefficients.tolist())
    print(
        f"evaluate: {scored.num_rows} {kind} rows: {model.describe()},"
        f" RMSE {both['model']['rmse']:.4g}; exact least squares: {best},"
        f" RMSE {both['least_squares']['rmse']:.4g}"
    )


def exact_coefficients(features: list[str], exact: LeastSquares) -> dict[str, float]:
    """The exact estimate and its standard errors; of dependent columns, their rank instead."""
    num_columns = 1 + len(features)
    if exact.rank < num_columns:
        return {"columns": num_columns, "rank": exact.rank, "rank_deficient": True}
    names = coefficient_names(features)
    estimate = dict(zip(names, exact.coefficients.tolist(), strict=True))
    if exact.std_errors is not None:
        errors = exact.std_errors.tolist()
        estimate |= {f"{name}_std_error": error for name, error in zip(names, errors, strict=True)}
    return estimate


def coefficient_names(features: list[str]) -> list[str]:
    """Names of the intercept and the slopes: b and m for one feature, else the features' own."""
    return ["b", "m"] if len(features) == 1 else ["intercept", *features]


def sample_fit(
    split: Split, predict: Predict, exact: LeastSquares, num_rows: int
) -> Iterator[tuple[object, ...]]:
    """Rows of fit.csv: ``num_rows`` rows of ``split`` at even distances, or all if they are fewer.

    ``x`` is the one feature or, where there are several, the prediction, and the rows are sorted by
    it. Each row repeats the names for the axes: nothing else tells them to a plot. They hold no
    `<`, which could end the script of DVC's page.
    """
    num_rows = min(num_rows, split.num_rows)
    chosen = np.arange(num_rows) * split.num_rows // num_rows
    blocks, places = np.divmod(chosen, split.block_rows)
    parts = [split.read(block)[places[blocks == block]] for block in np.unique(blocks)]
    rows = torch.from_numpy(np.concatenate(parts))
    inputs, actual = rows[:, :-1], rows[:, -1].tolist()
    with torch.inference_mode():
        predicted = predict(inputs)[:, 0].tolist()
    if len(split.features) == 1:
        x, best = inputs[:, 0].tolist(), exact.predict(inputs)[:, 0].tolist()
        x_label = split.features[0]
    else:
        x, best = predicted, [""] * num_rows
        x_label = f"{split.target}, predicted"
    names = [name.replace("<", "‹") for name in (x_label, split.target)]
    columns = x, actual, predicted, best
    for row in sorted(zip(*columns, strict=True), key=itemgetter(0)):
        yield *row, row[1] - row[2], *names


if __name__ == "__main__":
    run(main)

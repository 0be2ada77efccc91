"""Score the trained model by inference, beside the best linear model there is.

Reads params.yaml, data/prepared/ and models/trained/; writes metrics/.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.parts.device import choose_device, set_numerics
from stages.parts.errors import UserError, run
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
from stages.parts.scores import Predict, scores
from stages.parts.split import Split, block_rows, read_statistics


def main() -> None:
    params = load_params()
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

    with output_folder(PLOTS) as folder:
        sample = sample_predictions(scored, predict, params.evaluate.plot_rows)
        write_csv(folder / "predictions.csv", ["actual", "predicted"], sample)
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


def sample_predictions(
    split: Split, predict: Predict, num_rows: int
) -> Iterator[tuple[float, float]]:
    """Target and prediction of ``num_rows`` rows at even distances, or of all if they are fewer."""
    num_rows = min(num_rows, split.num_rows)
    chosen = np.arange(num_rows) * split.num_rows // num_rows
    size = block_rows(len(split.features) + 1)
    with torch.inference_mode():
        for block in np.unique(chosen // size):
            rows = torch.from_numpy(split.read(block)[chosen[chosen // size == block] % size])
            predictions = predict(rows[:, :-1])
            yield from zip(rows[:, -1].tolist(), predictions[:, 0].tolist(), strict=True)


if __name__ == "__main__":
    run(main)

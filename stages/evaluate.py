"""Score the trained model, and the best linear model beside it.

Run by `dvc repro`, or alone by `python -m stages.evaluate`. Reads params.yaml, data/prepared/ and
models/trained/; writes metrics/.
"""

from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stages.base.errors import UserError
from stages.base.files import (
    EVALUATION,
    FIGURE,
    HISTORY,
    PREPARED,
    WEIGHTS,
    write_aside,
    write_json,
)
from stages.base.params import load_params
from stages.base.process import require_same_inputs, run
from stages.model.device import choose_device, set_numerics
from stages.model.model import Model, formula
from stages.rows.categories import coefficient_names
from stages.rows.predictions import predictions_file, scored_split
from stages.rows.split import SPLITS, Split, read_statistics
from stages.scoring.figure import figure
from stages.scoring.least_squares import LeastSquares, least_squares
from stages.scoring.scores import Predict, scores

LOSS_NAMES = {"mse": "squared error", "mae": "absolute error", "huber": "Huber loss"}
MAX_PRINTED = 5  # dependent columns


def main() -> None:
    params = load_params()
    set_numerics(params.train.numerics)
    splits = {name: Split(PREPARED / f"{name}.parquet") for name in SPLITS}
    statistics = read_statistics(splits["train"])
    model = Model.load(WEIGHTS)
    units = torch.from_numpy(statistics.units()).to(model.dtype)
    is_scaled_so = not model.params.standardize or torch.equal(torch.stack(model.units()), units)
    if not is_scaled_so or [*model.features, model.target] != statistics.columns:
        raise UserError(f"{WEIGHTS} was not trained on the rows in {PREPARED}. Run `dvc repro`.")
    device = choose_device(params.device, model.dtype)
    model.to(device).eval()

    def predict(inputs: Tensor) -> Tensor:
        return model(inputs.to(device)).cpu()

    optimum = least_squares(splits["train"], statistics)
    predictors = {"model": predict, "least_squares": optimum.predict}
    evaluation: dict[str, Any] = {"least_squares": describe(model.features, optimum)}
    if line := model.line():
        evaluation["learned"] = dict(zip(coefficient_names(model.features), line, strict=True))
    scored = splits[scored_split(statistics)]
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    with predictions_file(scored.dtype) as keep:
        for name, split in splits.items():
            if split.num_rows:
                found = scores(split, predictors, keep if split is scored else None)
                evaluation[name] = found["model"]
                evaluation["least_squares"][name] = found["least_squares"]
        fit = sample_fit(scored, predict, optimum, params.evaluate.plot_rows)
        loss = LOSS_NAMES.get(model.params.loss, f"{model.params.loss} loss")
        unit = "z-scores" if model.params.standardize else model.target
        drawn = figure(pd.read_csv(HISTORY), fit, f"mean {loss} of {unit}")
        require_same_inputs()
        write_aside(FIGURE, drawn)
        write_aside(FIGURE.with_name("fit.csv"), fit.to_csv(index=False).encode())
        write_json(EVALUATION, evaluation)
    names = [model.features[column - 1] for column in optimum.kept[1:]]
    best = formula(names, model.target, optimum.coefficients[optimum.kept].tolist())
    print(f"evaluate: model: {model.describe()}; RMSE {list_errors(evaluation)}")
    print(f"evaluate: exact least squares: {best}; RMSE {list_errors(evaluation['least_squares'])}")
    for column, others in islice(optimum.dependent.items(), MAX_PRINTED):
        cause = f"depends on `{'`, `'.join(others)}`" if others else "is constant"
        print(f"evaluate: `{column}` {cause}; least squares leaves it out")
    if len(optimum.dependent) > MAX_PRINTED:
        print(f"evaluate: it leaves out {len(optimum.dependent)} columns, named in {EVALUATION}")


def describe(features: list[str], optimum: LeastSquares) -> dict[str, Any]:
    """List coefficients and standard errors, and the columns that are left out."""
    names = coefficient_names(features)
    values = {"coefficients": optimum.coefficients, "std_errors": optimum.std_errors}
    estimate: dict[str, Any] = {
        key: {names[i]: vector[i].item() for i in optimum.kept}
        for key, vector in values.items()
        if vector is not None
    }
    left_out = {"reference_categories": optimum.references, "dependent_columns": optimum.dependent}
    return estimate | {key: columns for key, columns in left_out.items() if columns}


def list_errors(scored: dict[str, Any]) -> str:
    """List the RMSE of each split; the test rows, for the last look, stand last."""
    return ", ".join(f"{scored[name]['rmse']:.4g} {name}" for name in SPLITS if name in scored)


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


if __name__ == "__main__":
    run(main)

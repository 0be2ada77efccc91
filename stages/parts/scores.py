"""How far predictions are from the targets of a split."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.parts.errors import UserError
from stages.parts.exact_sum import exact_sum
from stages.parts.split import Split

Predict = Callable[[Tensor], Tensor]  # inputs (rows, features) → predictions (rows, 1)
Scores = dict[str, float]


@torch.inference_mode()
def scores(split: Split, predictors: Mapping[str, Predict], centre: float) -> dict[str, Scores]:
    """Score every predictor on all rows of ``split``, in one pass, block by block.

    Args:
        split: The rows, at least one.
        predictors: By name.
        centre: A number near the targets' mean, to keep the digits of their spread.

    Returns:
        For each name rows, RMSE, mean and largest absolute error, in the target's unit, and R²,
        the coefficient of determination, which targets without any spread do not have.

    Raises:
        UserError: If a prediction is not finite, or an error's square is too large for float64.
    """
    largest: dict[str, list[float]] = {name: [] for name in predictors}

    def deviations(block: int) -> NDArray[np.float64]:
        rows = torch.from_numpy(split.read(block))
        targets = rows[:, -1:].double()
        columns = [targets - centre, (targets - centre) ** 2]
        for name, predict in predictors.items():
            residuals = predict(rows[:, :-1]).double() - targets
            columns += [residuals.abs(), residuals**2]
            largest[name].append(residuals.abs().max().item())
        return torch.cat(columns, dim=1).numpy()

    blocks = range(split.num_blocks)
    totals = exact_sum(deviations, blocks, size=2 + 2 * len(predictors)).tolist()
    if not all(map(math.isfinite, totals)):
        raise UserError(
            f"evaluate: errors on {split.path} are too large to square. Lower `train.lr` or rescale"
            " the table's columns."
        )
    spread = totals[1] - totals[0] ** 2 / split.num_rows
    result = {}
    for position, name in enumerate(predictors):
        total_error, total_square = totals[2 + 2 * position : 4 + 2 * position]
        result[name] = {
            "rows": split.num_rows,
            "rmse": math.sqrt(total_square / split.num_rows),
            "mae": total_error / split.num_rows,
            "max_error": max(largest[name]),
        }
        if spread > 0:
            result[name]["r2"] = 1 - total_square / spread
    return result

"""How far predictions are from the targets of a split."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.base.errors import UserError
from stages.base.progress import Progress
from stages.rows.ordered_sum import column_sums, ordered_mean, ordered_sum
from stages.rows.split import Split

Predict = Callable[[Tensor], Tensor]  # inputs (rows, features) → predictions (rows, 1)
Scores = dict[str, float]


def scores(split: Split, predictors: Mapping[str, Predict]) -> dict[str, Scores]:
    """Score every predictor on all rows of ``split``, block by block.

    Returns:
        For each name: the number of rows; RMSE, mean absolute error and largest absolute error, in
        the unit of the target; and R², the coefficient of determination. R² is left out if all
        targets are equal.

    Raises:
        UserError: If a prediction is not finite, or the square of an error overflows float64.
    """
    blocks = range(split.num_blocks)

    progress = Progress("evaluate: scoring", split.num_rows)

    def targets_of(block: int) -> NDArray[np.float64]:
        return split.read_columns(block, [split.target])[0][:, None].astype(np.float64)

    mean = float(ordered_mean(targets_of, blocks, split.num_rows)[0])
    largest: dict[str, list[float]] = {name: [] for name in predictors}

    @torch.inference_mode()  # here, because it applies to one thread
    def deviations(block: int) -> NDArray[np.float64]:
        rows = torch.from_numpy(split.read(block))
        progress.add(len(rows))
        targets = rows[:, -1:].double()
        columns = [(targets - mean) ** 2]
        for name, predict in predictors.items():
            residuals = predict(rows[:, :-1]).double() - targets
            columns += [residuals.abs(), residuals**2]
            largest[name].append(residuals.abs().max().item())
        return column_sums(torch.cat(columns, dim=1).numpy())

    with progress:
        spread, *totals = ordered_sum(deviations, blocks).tolist()
    if not all(map(math.isfinite, [spread, *totals])):
        raise UserError(
            f"evaluate: errors on {split.path} are too large to square. Lower `train.lr` or rescale"
            " the table's columns."
        )
    result = {}
    for name, total_error, total_square in zip(predictors, totals[::2], totals[1::2], strict=True):
        result[name] = {
            "rows": split.num_rows,
            "rmse": math.sqrt(total_square / split.num_rows),
            "mae": total_error / split.num_rows,
            "max_error": max(largest[name]),
        }
        if spread > 0 and math.isfinite(total_square / spread):
            result[name]["r2"] = 1 - total_square / spread
    return result

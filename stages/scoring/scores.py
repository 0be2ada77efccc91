"""How far predictions are from the targets of a split."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.base.errors import UserError
from stages.base.progress import Progress
from stages.base.threads import in_order
from stages.rows.ordered_sum import Vector, column_sums, ordered_mean, ordered_sum
from stages.rows.split import Split

Predict = Callable[[Tensor], Tensor]  # inputs (rows, features) → predictions (rows, 1)
Keep = Callable[[NDArray[np.floating]], None]


def scores(
    split: Split, predictors: Mapping[str, Predict], keep: Keep | None = None
) -> dict[str, dict[str, float]]:
    """Score every predictor on all rows of ``split``, block by block, in threads.

    ``keep`` is called with what the first predictor predicts for each block's rows, in order.

    Returns:
        For each name: the number of rows; RMSE, mean absolute error and largest absolute error, in
        the unit of the target; and R², the coefficient of determination. R² is left out if all
        targets are equal.

    Raises:
        UserError: If a prediction is not finite, or the square of an error overflows float64.
    """
    blocks = range(split.num_blocks)
    progress = Progress("evaluate: scoring", split.num_rows)

    def targets_of(block: int) -> Vector:
        return split.read_columns(block, [split.target])[0][:, None].astype(np.float64)

    mean = float(ordered_mean(targets_of, blocks, split.num_rows)[0])
    # Small arrays of each block would lie between its large ones, whose memory then stays in use.
    sums = np.empty((len(blocks), 1 + 2 * len(predictors)))
    largest = np.empty((len(blocks), len(predictors)))

    @torch.inference_mode()  # here, because it applies to one thread
    @np.errstate(over="ignore", invalid="ignore")  # so does this
    def score(block: int) -> NDArray[np.floating]:
        rows = torch.from_numpy(split.read(block))
        targets = rows[:, -1:].double()
        predictions = [predict(rows[:, :-1]) for predict in predictors.values()]
        errors = torch.cat([p.double() - targets for p in predictions], dim=1).abs()
        columns = torch.cat([(targets - mean) ** 2, errors, errors**2], dim=1)
        sums[block], largest[block] = column_sums(columns.numpy()), errors.amax(dim=0)
        progress.add(len(rows))
        return predictions[0][:, 0].numpy()

    with progress:
        for predictions in in_order(score, blocks):
            if keep:
                keep(predictions)
    spread, *totals = ordered_sum(lambda block: sums[block], blocks).tolist()
    if not all(map(math.isfinite, [spread, *totals])):
        raise UserError(
            f"evaluate: errors on {split.path} are too large to square. Lower `train.lr` or rescale"
            " the table's columns."
        )
    result = {}
    total_errors, total_squares = totals[: len(predictors)], totals[len(predictors) :]
    max_errors = largest.max(axis=0).tolist()
    columns = zip(predictors, total_errors, total_squares, max_errors, strict=True)
    for name, total_error, total_square, max_error in columns:
        result[name] = {
            "rows": split.num_rows,
            "rmse": math.sqrt(total_square / split.num_rows),
            "mae": total_error / split.num_rows,
            "max_error": max_error,
        }
        if spread > 0 and math.isfinite(total_square / spread):
            result[name]["r2"] = 1 - total_square / spread
    return result

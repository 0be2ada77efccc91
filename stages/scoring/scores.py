"""How far predictions are from the targets of a split."""

import math
from collections.abc import Callable, Mapping
from functools import reduce
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.base.errors import UserError
from stages.base.progress import Progress
from stages.base.threads import in_order
from stages.rows.ordered_sum import add_groups, column_sums, groups, ordered_mean
from stages.rows.split import Split

Predict = Callable[[Tensor], Tensor]  # inputs (rows, features) → predictions (rows, 1)
Scores = dict[str, float]
Keep = Callable[[NDArray[np.floating]], None]


def scores(
    split: Split, predictors: Mapping[str, Predict], keep: Keep | None = None
) -> dict[str, Scores]:
    """Score every predictor on all rows of ``split``, block by block; each predicts once.

    Args:
        split: The rows.
        predictors: They predict in threads.
        keep: Called with what the first predictor predicts for each block's rows, in order.

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

    @torch.inference_mode()  # here, because it applies to one thread
    def score(block: int) -> tuple[NDArray[np.float64], list[float], NDArray[np.floating]]:
        rows = torch.from_numpy(split.read(block))
        targets = rows[:, -1:].double()
        predictions = [predict(rows[:, :-1]) for predict in predictors.values()]
        residuals = [prediction.double() - targets for prediction in predictions]
        columns = [(targets - mean) ** 2]
        columns += chain(*((residual.abs(), residual**2) for residual in residuals))
        progress.add(len(rows))
        with np.errstate(over="ignore", invalid="ignore"):  # it applies to one thread, too
            sums = column_sums(torch.cat(columns, dim=1).numpy())
        return sums, [r.abs().max().item() for r in residuals], predictions[0][:, 0].numpy()

    largest: list[list[float]] = []

    def collect(scored: tuple[NDArray[np.float64], list[float], NDArray[np.floating]]) -> Any:
        sums, block_largest, predictions = scored
        largest.append(block_largest)
        if keep:
            keep(predictions)
        return sums

    sums = map(collect, in_order(score, blocks))
    with progress, np.errstate(over="ignore", invalid="ignore"):
        group_sums = [reduce(np.add, islice(sums, len(group))) for group in groups(blocks)]
    spread, *totals = add_groups(dict(enumerate(group_sums))).tolist()
    if not all(map(math.isfinite, [spread, *totals])):
        raise UserError(
            f"evaluate: errors on {split.path} are too large to square. Lower `train.lr` or rescale"
            " the table's columns."
        )
    result = {}
    for name, total_error, total_square, errors in zip(
        predictors, totals[::2], totals[1::2], zip(*largest, strict=True), strict=True
    ):
        result[name] = {
            "rows": split.num_rows,
            "rmse": math.sqrt(total_square / split.num_rows),
            "mae": total_error / split.num_rows,
            "max_error": max(errors),
        }
        if spread > 0 and math.isfinite(total_square / spread):
            result[name]["r2"] = 1 - total_square / spread
    return result

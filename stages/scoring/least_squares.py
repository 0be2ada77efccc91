"""The best linear model for the training rows, computed exactly: the model to compare with."""

import math
from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from stages.base.progress import Progress
from stages.base.threads import in_order
from stages.rows.categories import inputs_of
from stages.rows.split import Split, Statistics

# Rounding hides that columns depend on each other, up to about this size.
DEPENDENCE_TOLERANCE = {"float32": 1e-6, "float64": 1e-12}  # of the length of the z-scores
MIN_WEIGHT = 1e-4  # of a column in another one that depends on it, in z-scores
MAX_NAMED = 10  # columns that another one depends on


class LeastSquares(NamedTuple):
    """The least-squares estimate in original units; a column that is left out has a slope of 0."""

    coefficients: Tensor  # (1 + features,), float64: the intercept, then the slopes
    std_errors: Tensor | None  # the same shape; None if there are no more rows than coefficients
    kept: list[int]  # the positions of the coefficients that are estimated
    references: list[str]  # left out: the first category of each column of categories
    dependent: dict[str, list[str]]  # left out: columns, and up to ten that determine each of them

    def predict(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(rows, features)`` to predictions ``(rows, 1)``, float64."""
        return inputs.double() @ self.coefficients[1:, None] + self.coefficients[0]


def least_squares(training: Split, statistics: Statistics) -> LeastSquares:
    """Fit a linear model in float64 by QR, block by block.

    The z-scores of each group of blocks give a triangular factor; the factors are merged in the
    order of the blocks (Demmel et al., "Communication-optimal parallel and sequential QR and LU
    factorizations", SIAM J. Sci. Comput. 34(1), 2012, §2). The first category of each column is the
    reference category: it is left out, because the others determine it. So is each other column
    that the columns before it determine.
    """
    mean, scale = torch.from_numpy(statistics.units())
    scale[scale == 0] = 1.0
    group_blocks = -(-4 * (1 + len(scale)) // training.block_rows)  # a factor has fewer rows
    progress = Progress("evaluate: least squares", training.num_rows)

    def triangle(first: int) -> Tensor:
        group = range(first, min(first + group_blocks, training.num_blocks))
        rows = torch.cat([torch.from_numpy(training.read(block)) for block in group]).double()
        progress.add(len(rows))
        ones = torch.ones(len(rows), 1, dtype=torch.float64)
        return torch.linalg.qr(torch.cat([ones, (rows - mean) / scale], dim=1), mode="r").R

    def fold(upper: Tensor, lower: Tensor) -> Tensor:
        return torch.linalg.qr(torch.cat([upper, lower]), mode="r").R

    with progress:
        factor = reduce(fold, in_order(triangle, range(0, training.num_blocks, group_blocks)))
    names = ["", *training.features]  # the intercept has no name
    references = [inputs_of(name, statistics.categories)[0] for name in statistics.categories]
    columns = [i for i, name in enumerate(names) if name not in references]
    kept = independent(factor, columns, DEPENDENCE_TOLERANCE[training.dtype])
    left_out = [column for column in columns if column not in kept]
    u, singular, v_transposed = torch.linalg.svd(factor[:, kept], full_matrices=False)
    v = v_transposed.T
    explained = u.T @ factor[:, -1]
    z_coefficients = v @ (explained / singular)
    residual_norm = torch.linalg.vector_norm(factor[:, -1] - u @ explained)
    weights = (v @ (u.T @ factor[:, left_out] / singular[:, None])).abs()  # (kept, left out)
    dependent = {
        names[column]: [names[kept[i]] for i in (weight > MIN_WEIGHT).nonzero()[:MAX_NAMED, 0]]
        for column, weight in zip(left_out, weights.T, strict=True)
    }

    # To original units: slope_j = c_j·t/s_j, intercept = mean_t + t·c_0 - Σ slope_j·mean_j.
    to_original = torch.diag(scale[-1] / torch.cat([torch.ones(1), scale[:-1]]))
    to_original[0, 1:] = -scale[-1] * mean[:-1] / scale[:-1]
    to_original = to_original[:, kept]
    coefficients = to_original @ z_coefficients
    coefficients[0] += mean[-1]
    num_spare = training.num_rows - len(kept)
    lengths = torch.linalg.vector_norm(to_original @ (v / singular), dim=1)
    std_errors = lengths * residual_norm / math.sqrt(num_spare) if num_spare else None
    return LeastSquares(coefficients, std_errors, kept, references, dependent)


def independent(factor: Tensor, columns: Iterable[int], tolerance: float) -> list[int]:
    """Return the columns that no columns before them determine, by Gram-Schmidt, done twice."""
    kept: list[int] = []
    basis = torch.empty_like(factor)  # its first columns: orthonormal, with the span of ``kept``
    for column in columns:
        rest = factor[:, column]
        for _ in range(2):
            known = basis[:, : len(kept)]
            rest = rest - known @ (known.T @ rest)
        length = torch.linalg.vector_norm(rest)
        if length > tolerance * torch.linalg.vector_norm(factor[:, 0]):
            basis[:, len(kept)] = rest / length
            kept.append(column)
    return kept

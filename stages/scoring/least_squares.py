"""The best linear model for the training rows, computed exactly: the model to compare with."""

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from stages.base.progress import Progress
from stages.base.threads import in_order
from stages.rows.split import Split, Statistics, block_rows

# Rounding hides that columns depend on each other, up to about this size.
RANK_TOLERANCE = {"float32": 1e-6, "float64": 1e-12}  # of the z-scores' largest singular value


@dataclass(frozen=True)
class LeastSquares:
    """The least-squares estimate in original units."""

    coefficients: Tensor  # (1 + features,), float64: the intercept, then the slopes
    std_errors: Tensor | None  # the same shape; None if columns are dependent or rows too few
    rank: int  # 1 + features, unless the columns are dependent

    def predict(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(rows, features)`` to predictions ``(rows, 1)``, float64."""
        return inputs.double() @ self.coefficients[1:, None] + self.coefficients[0]


def least_squares(training: Split, statistics: Statistics) -> LeastSquares:
    """Fit a linear model in float64 by QR, block by block.

    The z-scores of each group of blocks give a triangular factor; the factors are merged in the
    order of the blocks (Demmel et al., "Communication-optimal parallel and sequential QR and LU
    factorizations", SIAM J. Sci. Comput. 34(1), 2012, §2). If columns depend on each other, the
    result is the estimate of least norm.
    """
    mean, scale = torch.from_numpy(statistics.units())
    scale[scale == 0] = 1.0
    width = 1 + len(scale)
    group_blocks = -(-4 * width // block_rows(len(scale)))  # a factor is smaller than its rows

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
    u, singular, v_transposed = torch.linalg.svd(factor[:, :-1], full_matrices=False)
    rank = int((singular > RANK_TOLERANCE[training.dtype] * singular[0]).sum())
    u, singular, v = u[:, :rank], singular[:rank], v_transposed[:rank].T
    explained = u.T @ factor[:, -1]
    z_coefficients = v @ (explained / singular)
    residual_norm = torch.linalg.vector_norm(factor[:, -1] - u @ explained)

    # To original units: slope_j = c_j·t/s_j, intercept = mean_t + t·c_0 - Σ slope_j·mean_j.
    to_original = torch.zeros(width - 1, width - 1, dtype=torch.float64)
    to_original.diagonal().copy_(scale[-1] / torch.cat([torch.ones(1), scale[:-1]]))
    to_original[0, 1:] = -scale[-1] * mean[:-1] / scale[:-1]
    coefficients = to_original @ z_coefficients
    coefficients[0] += mean[-1]
    num_spare = training.num_rows - rank
    if rank < width - 1 or num_spare == 0:
        return LeastSquares(coefficients, None, rank)
    errors = torch.linalg.vector_norm(to_original @ (v / singular), dim=1)
    return LeastSquares(coefficients, errors * residual_norm / math.sqrt(num_spare), rank)

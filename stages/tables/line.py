"""A sample table: a straight line with Gaussian noise, the same bits on every machine."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stages.base.threads import in_order
from stages.rows.split import arrow_column
from stages.tables.table import Batch

LINE_BLOCK_ROWS = 2**16
LOG_2 = 0.6931471805599453
NOISE = 1  # the purpose of this stream of random numbers: [seed, NOISE, block]


class Line:
    """The rows ``(x, y)``: x evenly spaced in [0, 1), y = m·x + b + noise·N(0, 1)."""

    def __init__(self, num_rows: int, m: float, b: float, noise: float, seed: int) -> None:
        self.path, self.has_types = "the line", True
        self.names, self.index = ["x", "y"], ()
        self._num_rows, self._m, self._b, self._noise, self._seed = num_rows, m, b, noise, seed

    def batches(self, columns: list[str]) -> Iterator[Batch]:
        """Draw the rows, one block at a time."""

        def block(start: int) -> Batch:
            stop = min(start + LINE_BLOCK_ROWS, self._num_rows)
            x = np.arange(start, stop) / self._num_rows
            generator = np.random.default_rng([self._seed, NOISE, start // LINE_BLOCK_ROWS])
            deviations = standard_normal(generator, LINE_BLOCK_ROWS)[: stop - start]
            values = {"x": x, "y": self._m * x + self._b + self._noise * deviations}
            arrays = [arrow_column(values[name]) for name in columns]
            return Batch(arrays, stop / self._num_rows, self.path, start + 1)

        yield from in_order(block, range(0, self._num_rows, LINE_BLOCK_ROWS))


def standard_normal(generator: np.random.Generator, num_values: int) -> NDArray[np.float64]:
    """Draw from the standard normal distribution by the ratio of uniforms.

    A value is a quotient of uniform numbers, and every CPU rounds a quotient correctly. Logarithms,
    sines and exponentials, which other generators return, differ between CPUs.

    Source: Kinderman & Monahan, "Computer Generation of Random Variables Using the Ratio of Uniform
    Deviates", ACM TOMS 3(3), 1977.
    """
    accepted = np.empty(0)
    while len(accepted) < num_values:
        u = 1.0 - generator.random(num_values)  # (0, 1]
        v = (2.0 * generator.random(num_values) - 1.0) * math.sqrt(2.0 / math.e)
        ratio = v / u
        accepted = np.append(accepted, ratio[ratio * ratio <= -4.0 * portable_log(u)])
    return accepted[:num_values]


def portable_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm, exact to a few 1e-16, from operations that IEEE 754 rounds correctly.

    With values = f·2ᵉ and 2/3 < f ≤ 4/3: log f = 2·artanh(t), t = (f - 1)/(f + 1), |t| ≤ 1/5.
    """
    fraction, exponent = np.frexp(values)
    is_small = fraction <= 2.0 / 3.0
    fraction = np.where(is_small, 2.0 * fraction, fraction)
    t = (fraction - 1.0) / (fraction + 1.0)
    series = np.zeros_like(t)
    for odd in range(23, 0, -2):
        series = series * (t * t) + 1.0 / odd
    return 2.0 * t * series + (exponent - is_small) * LOG_2

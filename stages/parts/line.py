"""Sample rows of a straight line with Gaussian noise, the same bits on every machine."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CHUNK_ROWS = 2**16
LOG_2 = 0.6931471805599453
NOISE = 1  # the purpose of this stream of random numbers: [seed, NOISE, chunk]


def line(
    num_rows: int, m: float, b: float, noise: float, seed: int
) -> Iterator[NDArray[np.float64]]:
    """Yield ``(x, y)`` rows, shape ``(rows, 2)``: x even in [0, 1), y = m·x + b + noise·N(0, 1)."""
    for start in range(0, num_rows, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, num_rows)
        x = np.arange(start, stop) / num_rows
        generator = np.random.default_rng([seed, NOISE, start // CHUNK_ROWS])
        deviations = standard_normal(generator, CHUNK_ROWS)[: stop - start]
        yield np.column_stack([x, m * x + b + noise * deviations])


def standard_normal(generator: np.random.Generator, num_values: int) -> NDArray[np.float64]:
    """Draw from the standard normal distribution by the ratio of uniforms.

    Kinderman & Monahan, "Computer Generation of Random Variables Using the Ratio of Uniform
    Deviates", ACM TOMS 3(3), 1977. A value is a quotient of uniforms, hence correctly rounded on
    every CPU; generators that return logarithms, sines or exponentials are not.
    """
    accepted = np.empty(0)
    while len(accepted) < num_values:
        u = 1.0 - generator.random(num_values)  # (0, 1]
        v = (2.0 * generator.random(num_values) - 1.0) * math.sqrt(2.0 / math.e)
        ratio = v / u
        accepted = np.append(accepted, ratio[ratio * ratio <= -4.0 * portable_log(u)])
    return accepted[:num_values]


def portable_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm within a few 1e-16, by operations that IEEE 754 rounds correctly.

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

"""Sums that do not depend on order or grouping: threads and blocks change no bit of them.

Every number is cut at fixed powers of 2³² into integers below 2³², one per bin. Integers add
exactly in any order. A sum keeps only the three highest bins that it has met. These are the same
bins with the same content for any order of the numbers (Demmel & Nguyen, "Parallel Reproducible
Summation", IEEE Transactions on Computers 64(7), 2015).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from stages.base.threads import Item, in_threads

BIN_BITS = 32
NUM_BINS = 3
LOWEST = -29  # the lowest top bin: the unit two bins below it, 2⁻⁹⁹², is still a normal float64
ADD_AT_ONCE = 2**17  # numbers, about: 2²¹ integers below 2³² would still add exactly in float64


class ExactSum:
    """Running sums of ``size`` components, for at most 2³¹ vectors.

    Each number loses less than 2⁻⁶⁴ of the largest magnitude of its component, or less than 2⁻⁹⁹².
    An infinite or NaN number makes all totals NaN.
    """

    def __init__(self, size: int) -> None:
        self.top = np.full(size, LOWEST)  # index of the highest bin, per component
        self.bins = np.zeros((NUM_BINS, size), np.int64)
        self.is_finite = True

    def add(self, vectors: NDArray[np.float64]) -> None:
        """Add the rows of ``vectors``, shape ``(rows, size)``."""
        num_rows, size = vectors.shape
        step = max(1, ADD_AT_ONCE // size)
        for start in range(0, num_rows, step):
            self._add_at_once(vectors[start : start + step])

    def _add_at_once(self, vectors: NDArray[np.float64]) -> None:
        num_rows, size = vectors.shape
        rest = vectors.copy(order="F" if num_rows > size else "C")  # keeps numpy's inner loops long
        whole = np.empty_like(rest)
        largest = np.abs(rest, out=whole).max(axis=0)
        if not np.isfinite(largest).all():
            self.is_finite = False
            return
        _, exponents = np.frexp(largest)  # largest < 2**exponent
        self.raise_to(np.where(largest > 0, (exponents - 1) // BIN_BITS, LOWEST))
        for position in range(NUM_BINS):
            unit = self._unit(position)
            np.trunc(np.divide(rest, unit, out=whole), out=whole)
            self.bins[position] += whole.sum(axis=0).astype(np.int64)
            rest -= np.multiply(whole, unit, out=whole)

    def merge(self, other: "ExactSum") -> None:
        """Add the sums of ``other``, which must not be used afterwards."""
        self.raise_to(other.top)
        other.raise_to(self.top)
        self.bins += other.bins
        self.is_finite &= other.is_finite

    def total(self) -> NDArray[np.float64]:
        """The sums, shape ``(size,)``, each rounded to within 2⁻⁵¹ of itself."""
        bins = self.bins.copy()
        for position in range(NUM_BINS - 1, 0, -1):  # carry, so that no bins cancel: within ±2³¹
            carry = (bins[position] + 2 ** (BIN_BITS - 1)) >> BIN_BITS
            bins[position - 1] += carry
            bins[position] -= carry << BIN_BITS
        with np.errstate(over="ignore"):  # a sum that is too large becomes infinite
            low_first = [bins[i] * self._unit(i) for i in reversed(range(NUM_BINS))]
            return sum(low_first) if self.is_finite else np.full(len(self.top), np.nan)

    def _unit(self, position: int) -> NDArray[np.float64]:
        return np.ldexp(1.0, BIN_BITS * (self.top - position))

    def raise_to(self, top: NDArray[np.int64]) -> None:
        """Raise the highest bin to ``top`` where that is higher; drop the lowest bins for it."""
        shift = np.minimum(np.maximum(top - self.top, 0), NUM_BINS)
        if shift.any():
            padded = np.concatenate([np.zeros_like(self.bins), self.bins])
            rows = np.arange(NUM_BINS, 2 * NUM_BINS)[:, None] - shift
            self.bins = np.take_along_axis(padded, rows, axis=0)
            self.top = np.maximum(self.top, top)


def exact_sum(
    vectors_of: Callable[[Item], NDArray[np.float64]], items: Sequence[Item], size: int
) -> NDArray[np.float64]:
    """Add all rows of ``vectors_of(item)``, shape ``(rows, size)``, for all items, in threads."""
    return partial_sum(vectors_of, items, size).total()


def exact_mean(
    vectors_of: Callable[[Item], NDArray[np.float64]],
    items: Sequence[Item],
    size: int,
    num_rows: int,
) -> NDArray[np.float64]:
    """Return the mean of all rows, shape ``(size,)``; equal rows have exactly their own mean."""
    first = vectors_of(items[0])[0]

    def from_first(item: Item) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):  # inside the function: it applies to one thread only
            return vectors_of(item) - first

    return first + exact_sum(from_first, items, size) / num_rows


def partial_sum(
    vectors_of: Callable[[Item], NDArray[np.float64]], items: Sequence[Item], size: int
) -> ExactSum:
    """Do the same as `exact_sum`, but return a sum that can be merged with others."""

    def work(common: Iterator[Item]) -> tuple[ExactSum, list[NDArray[np.float64]]]:
        partial, waiting = ExactSum(size), []  # collects small vectors, to add many at once
        for item in common:
            waiting.append(vectors_of(item))
            if len(waiting) * waiting[-1].size >= ADD_AT_ONCE:
                partial.add(np.concatenate(waiting))
                waiting.clear()
        return partial, waiting

    (total, *partials), left = zip(*in_threads(work, items), strict=True)
    for partial in partials:
        total.merge(partial)
    total.add(np.concatenate([np.empty((0, size)), *chain(*left)]))
    return total

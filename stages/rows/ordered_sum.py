"""Sums in one order, so that threads and ranks change no bit.

A float sum depends on the order of its additions. Here the order is fixed: the items are cut into
groups, however many threads there are; the vectors of a group are added in their order, and then
the groups' sums in theirs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.base.threads import Item, in_threads

NUM_GROUPS = 64
Vector = NDArray[np.float64]


def groups(items: Sequence[Item], num_groups: int = NUM_GROUPS) -> list[Sequence[Item]]:
    """Cut the items into at most ``num_groups`` groups of neighbours; none is empty."""
    num_groups = min(num_groups, len(items))
    bounds = [len(items) * group // num_groups for group in range(num_groups + 1)]
    return [items[start:stop] for start, stop in pairwise(bounds)]


def ordered_sum(vector_of: Callable[[Item], Vector], items: Sequence[Item]) -> Vector:
    """Add ``vector_of(item)`` of all items, computed in threads; at least one item."""
    all_groups = groups(items)
    return add_groups(sum_groups(vector_of, all_groups, range(len(all_groups))))


def sum_groups(
    vector_of: Callable[[Item], Vector], all_groups: Sequence[Sequence[Item]], own: Sequence[int]
) -> dict[int, Vector]:
    """Return the sums of the groups with the numbers ``own``, computed in threads."""
    sums = {}

    def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            sums[number] = _add(map(vector_of, all_groups[number]))

    in_threads(work, own)
    return sums


def add_groups(sums: Mapping[int, Vector]) -> Vector:
    """Add the sums of all groups in the order of the groups' numbers."""
    return _add(sums[number] for number in range(len(sums)))


@np.errstate(over="ignore", invalid="ignore")  # for this call and thread: no warning of infinity
def _add(vectors: Iterable[Vector]) -> Any:
    return sum(vectors)  # on an accelerator, they are tensors


def column_sums(rows: Vector) -> Vector:
    """Add the rows of one block, shape ``(rows, columns)`` → ``(columns,)``.

    numpy adds a contiguous column in pairs, in an order that no CPU changes.
    """
    return np.array([np.ascontiguousarray(column).sum() for column in rows.T])


def ordered_mean(rows_of: Callable[[Item], Vector], items: Sequence[Item], num_rows: int) -> Vector:
    """Return the mean of all rows of ``rows_of(item)``; if all rows are equal, it is that row."""
    first = rows_of(items[0])[0]
    total = ordered_sum(lambda item: column_sums(rows_of(item) - first), items)
    return np.asarray(first + total / num_rows)

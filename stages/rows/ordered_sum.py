"""Sums in one order, so that threads and ranks change no bit.

A float sum depends on the order of its additions. Here the order is fixed: the items are cut into
groups, however many threads there are; the vectors of a group are added in their order, and then
the groups' sums in theirs.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stages.base.threads import Item, in_order

NUM_GROUPS = 64
Vector = NDArray[np.float64]


def groups(items: Sequence[Item], num_groups: int = NUM_GROUPS) -> list[Sequence[Item]]:
    """Cut the items into at most ``num_groups`` groups of neighbours; none is empty."""
    num_groups = min(num_groups, len(items))
    bounds = [len(items) * group // num_groups for group in range(num_groups + 1)]
    return [items[start:stop] for start, stop in pairwise(bounds)]


def sum_group(vector_of: Callable[[Item], Vector], group: Sequence[Item]) -> Vector:
    """Add the vectors of a group's items in their order."""
    total = vector_of(group[0])
    with np.errstate(over="ignore", invalid="ignore"):  # errstate holds for its thread only
        for item in group[1:]:
            total = total + vector_of(item)
    return total


def ordered_sum(vector_of: Callable[[Item], Vector], items: Sequence[Item]) -> Vector:
    """Add ``vector_of(item)`` of all items, computed in threads; at least one item."""
    sums = in_order(lambda group: sum_group(vector_of, group), groups(items))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(sum(sums))


def column_sums(rows: Vector) -> Vector:
    """Add the rows of one block, shape ``(rows, columns)`` → ``(columns,)``.

    numpy adds a contiguous column in pairs, in an order that no CPU changes.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array([np.ascontiguousarray(column).sum() for column in rows.T])


def ordered_mean(rows_of: Callable[[Item], Vector], items: Sequence[Item], num_rows: int) -> Vector:
    """Return the mean of all rows of ``rows_of(item)``; if all rows are equal, it is that row."""
    first = rows_of(items[0])[0]

    def from_first(item: Item) -> Vector:
        with np.errstate(over="ignore"):
            return column_sums(rows_of(item) - first)

    return np.asarray(first + ordered_sum(from_first, items) / num_rows)

"""Category columns: text with few different values, one input of 0 or 1 for each value."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_CATEGORIES = 100  # different values of a column

Categories = Mapping[str, Sequence[str]]  # by column, sorted


def inputs_of(column: str, categories: Categories) -> list[str]:
    """The names of a column's inputs: its own, or one such as `origin=Japan` per category."""
    if column not in categories:
        return [column]
    return [f"{column}={category}" for category in categories[column]]


def columns_of(inputs: Iterable[str], categories: Categories) -> list[str]:
    """The columns of a table that make these inputs, in order."""
    columns = {name: column for column in categories for name in inputs_of(column, categories)}
    return list(dict.fromkeys(columns.get(name, name) for name in inputs))


def encode(
    rows: NDArray[np.floating], columns: Sequence[str], categories: Categories
) -> NDArray[np.floating]:
    """Give every category an input; rows without categories are returned as they are.

    Args:
        rows: One column for each of ``columns``; of a category column, the category's index.
        columns: The table's columns, features before target.
        categories: What `prepare` has found.

    Returns:
        The rows with their inputs in order, shape ``(rows, inputs)``.
    """
    if not categories:
        return rows
    parts = []
    for column, cells in zip(columns, rows.T, strict=True):
        if column in categories:
            parts.append(cells[:, None] == np.arange(len(categories[column])))
        else:
            parts.append(cells[:, None])
    return np.concatenate(parts, axis=1, dtype=rows.dtype)

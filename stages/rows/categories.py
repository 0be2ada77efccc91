"""Category columns: text with few different values; each value becomes a feature of 0 or 1."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_CATEGORIES = 100  # in one column

Categories = Mapping[str, Sequence[str]]  # column → its categories, sorted


def inputs_of(column: str, categories: Categories) -> list[str]:
    """Return a column's features: its own name, or one such as `origin=Japan` per category."""
    if column not in categories:
        return [column]
    return [f"{column}={category}" for category in categories[column]]


def columns_of(inputs: Iterable[str], categories: Categories) -> list[str]:
    """Return the columns of a table that these features come from, in order."""
    columns = {name: column for column in categories for name in inputs_of(column, categories)}
    return list(dict.fromkeys(columns.get(name, name) for name in inputs))


def coefficient_names(features: Sequence[str]) -> list[str]:
    """Name the intercept and the slopes: b and m for one feature, else `intercept` and features."""
    return ["b", "m"] if len(features) == 1 else ["intercept", *features]


def encode(
    rows: NDArray[np.floating], columns: Sequence[str], categories: Categories
) -> NDArray[np.floating]:
    """Turn each category column, which holds indices of categories, into one feature per category.

    ``rows`` has the shape ``(rows, columns)``, with the target last; the result has the shape
    ``(rows, features + 1)``. Without categories it is ``rows`` itself, not a copy.
    """
    if not categories:
        return rows
    features = [
        cells == np.arange(len(categories[column])) if column in categories else cells
        for column, cells in zip(columns, rows.T[:, :, None], strict=True)
    ]
    return np.concatenate(features, axis=1, dtype=rows.dtype)

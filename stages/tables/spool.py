"""The rows of a table in a temporary file: read again when their splits are known."""

from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from stages.base.params import PrepareParams
from stages.rows.categories import Categories, encode
from stages.rows.ordered_sum import column_sums
from stages.rows.split import split_labels
from stages.tables.columns import TableColumn

Labelled = Iterator[tuple[NDArray[np.uint8], NDArray[Any]]]  # splits (rows,), (rows, inputs)


def spool_rows(
    batches: Iterable[NDArray[np.floating]], spool: IO[bytes], num_columns: int, is_filled: bool
) -> tuple[int, int, NDArray[np.int_]]:
    """Write the rows that are used: without missing cells or, if these are filled, with a target.

    Returns:
        Their number, that of the other rows, and how many cells of each column are to be filled.
    """
    num_rows = num_dropped = 0
    num_filled = np.zeros(num_columns, int)
    for batch in batches:
        is_missing = ~np.isfinite(batch)
        is_used = ~(is_missing[:, -1] if is_filled else is_missing.any(axis=1))
        rows = batch if is_used.all() else batch[is_used]
        spool.write(np.ascontiguousarray(rows).data)
        num_rows += len(rows)
        num_dropped += len(batch) - len(rows)
        if is_filled:
            num_filled += is_missing[is_used].sum(axis=0)
    return num_rows, num_dropped, num_filled


def read_spool(
    spool: IO[bytes],
    columns: Sequence[TableColumn],
    categories: Categories,
    sizes: tuple[int, ...],
    params: PrepareParams,
) -> Labelled:
    """Yield the rows with one input per category, some at a time, and the split of each row."""
    spool.seek(0)
    names = [column.name for column in columns]
    for labels in split_labels(sizes, params.split, params.seed):
        cells = np.fromfile(spool, params.dtype, len(labels) * len(names))
        rows = cells.reshape(len(labels), len(names))
        for column, codes in zip(columns, rows.T, strict=True):
            column.recode(codes)
        yield labels, encode(rows, names, categories)


def learn(labelled: Labelled, is_filled: bool) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Find which inputs vary in the training rows, and the means of their cells there.

    Without filling, the means are not needed, and this ends as soon as every input varies.
    """
    lowest, highest, total, num_known = (np.array([start]) for start in (np.nan, np.nan, 0.0, 0.0))
    for labels, rows in labelled:
        training = rows[labels == 0].astype(np.float64)
        is_known = np.isfinite(training)
        training[~is_known] = np.nan
        lowest = np.fmin(lowest, np.fmin.reduce(training, axis=0, initial=np.nan))
        highest = np.fmax(highest, np.fmax.reduce(training, axis=0, initial=np.nan))
        if not is_filled and (lowest < highest).all():
            break
        total = total + column_sums(np.where(is_known, training, 0))
        num_known = num_known + is_known.sum(axis=0)
    means = total / np.maximum(num_known, 1)
    return lowest < highest, np.clip(means, lowest, highest)  # rounding may leave the range

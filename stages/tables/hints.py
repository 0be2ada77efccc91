"""Hints: what a user may have overlooked in a table. They change nothing."""

import numpy as np

from stages.base.params import PrepareParams
from stages.rows.split import Split
from stages.tables.cures import leave_out

MAX_HINTS = 3
MIN_VALUES, MIN_GAP = 10, 4  # the gap is relative to the range of the other values
DECADES_DEVIATION = 1.5  # relative to the mean; an exponential distribution has 1


def hints(training: Split, params: PrepareParams) -> list[str]:
    """Return at most three sentences about the first block of the training rows."""
    found = []
    rows = training.read(0).astype(np.float64)
    for name, cells in zip([*training.features, training.target], rows.T, strict=True):
        values, counts = np.unique(cells, return_counts=True)
        if len(values) < MIN_VALUES:
            continue
        gaps = np.diff(values)
        found += [
            f"`{name}` is {values[end]:.9g} in {counts[end]} row(s), far from other values: if that"
            " marks a missing cell, list it in `prepare.missing_values`; if it is a total, delete"
            " the row"
            for end in (0, -1)
            if gaps[end] > MIN_GAP * np.ptp(np.delete(values, end))
        ]
        is_whole, is_rising = (values % 1 == 0).all(), (np.diff(cells) > 0).all()
        if name == training.target:
            if values[0] > 0 and cells.std() > DECADES_DEVIATION * cells.mean():
                found.append(
                    f"the target `{name}` spans decades, {values[0]:.2g} to {values[-1]:.2g}: the"
                    " largest values decide the loss; its logarithm may be a better target"
                )
        elif is_whole and is_rising and len(training.features) > 1:
            found.append(
                f"`{name}` counts up from row to row: if it is an identifier,"
                f" {leave_out(name, params)}"
            )
    return found[:MAX_HINTS]

"""The predictions for the rows of a split, with the hashes of the files that they belong to."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.errors import UserError
from stages.base.files import EVALUATION, FIGURE, PREDICTIONS, STATISTICS, WEIGHTS, sha256
from stages.rows.split import Split, Statistics, arrow_column


def scored_split(statistics: Statistics) -> Literal["test", "train"]:
    """Name the rows that are scored: the test rows or, if there are none, the training rows."""
    return "test" if statistics.rows["test"] else "train"


@contextmanager
def predictions_file(dtype: str) -> Iterator[Callable[[NDArray[np.floating]], None]]:
    """Write predictions.parquet: a column ``predicted``, with a row group for each block.

    Yield a function that appends the predictions for a block's rows, shape ``(rows,)``. At the end
    of the ``with`` block, the file gets the hashes of all that belongs to it.
    """
    schema = pa.schema([("predicted", pa.from_numpy_dtype(dtype))])
    draft = PREDICTIONS.with_name(f".{PREDICTIONS.name}.{os.getpid()}.draft")
    try:
        with pq.ParquetWriter(draft, schema, compression="NONE", use_dictionary=False) as file:
            yield lambda rows: file.write_batch(pa.record_batch([arrow_column(rows)], schema))
            file.add_key_value_metadata(_origin())
        draft.replace(PREDICTIONS)
    finally:
        draft.unlink(missing_ok=True)


class Predictions:
    """What `evaluate` predicted for the rows of ``split``.

    Raises:
        UserError: If the file is missing or damaged, or if predictions, scores, figure, statistics
            or weights do not belong to each other and to these rows.
    """

    def __init__(self, split: Split) -> None:
        try:
            self._file = pq.ParquetFile(PREDICTIONS)
        except (pa.ArrowException, OSError):
            raise UserError(
                f"{PREDICTIONS} does not hold predictions. Run `dvc repro --force evaluate`."
            ) from None
        metadata = self._file.metadata
        is_same = _origin().items() <= (metadata.metadata or {}).items()
        if not is_same or metadata.num_rows != split.num_rows:
            raise UserError(
                f"save: {EVALUATION}, {FIGURE} and {PREDICTIONS} were not made from {WEIGHTS} and"
                f" {STATISTICS}. Run `dvc repro --force evaluate`."
            )

    def read(self, block: int) -> NDArray[Any]:
        """The predictions for the rows of one block, shape ``(rows, 1)``."""
        column = self._file.read_row_group(block, use_threads=False).column(0)
        return np.from_dlpack(column.chunk(0))[:, None]


def _origin() -> dict[bytes, bytes]:
    """Return the hashes of the files that must belong to the same model as the predictions."""
    paths = {b"figure": FIGURE, b"scores": EVALUATION, b"rows": STATISTICS, b"weights": WEIGHTS}
    return {name: sha256(path).encode() for name, path in paths.items()}

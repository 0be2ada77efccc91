"""The predictions for the rows of a split, with the hashes of the files that they belong to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.errors import UserError
from stages.base.files import (
    EVALUATION,
    FIGURE,
    PREDICTIONS,
    PREPARED,
    STATISTICS,
    WEIGHTS,
    draft_of,
    sha256,
)
from stages.rows.split import SPLITS, Split, Statistics, arrow_column


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
    draft = draft_of(PREDICTIONS)
    try:
        with (
            draft.open("wb") as opened,
            pq.ParquetWriter(opened, schema, compression="NONE", use_dictionary=False) as file,
        ):
            yield lambda rows: file.write_batch(pa.record_batch([arrow_column(rows)], schema))
            file.add_key_value_metadata(_hashes())
        draft.replace(PREDICTIONS)
    finally:
        draft.unlink(missing_ok=True)


class Predictions:
    """What `evaluate` predicted for the rows of ``split``.

    Raises:
        UserError: If the file is missing or damaged, or if predictions, scores, figure, weights
            and the files of data/prepared do not belong to each other.
    """

    def __init__(self, split: Split) -> None:
        try:
            self._file = pq.ParquetFile(PREDICTIONS)
        except (pa.ArrowException, OSError):
            raise UserError(
                f"{PREDICTIONS} does not hold predictions. Run `dvc repro --force evaluate`."
            ) from None
        metadata, self.hashes = self._file.metadata, _hashes()
        expected = {name.encode(): sha.encode() for name, sha in self.hashes.items()}
        is_same = expected.items() <= (metadata.metadata or {}).items()
        if not is_same or metadata.num_rows != split.num_rows:
            raise UserError(
                f"save: {EVALUATION}, {FIGURE} and {PREDICTIONS} were not made from {WEIGHTS} and"
                f" {PREPARED}. Run `dvc repro --force evaluate`."
            )

    def read(self, block: int) -> NDArray[Any]:
        """The predictions for the rows of one block, shape ``(rows, 1)``."""
        column = self._file.read_row_group(block, use_threads=False).column(0)
        return np.from_dlpack(column.chunk(0))[:, None]


def _hashes() -> dict[str, str]:
    """Return the SHA-256 of each file that belongs to the predictions, by the file's name."""
    splits = [PREPARED / f"{name}.parquet" for name in SPLITS]
    paths = [FIGURE, EVALUATION, WEIGHTS, STATISTICS, *splits]
    return {path.name: sha256(path) for path in paths}

"""The predictions for the rows of a split, with the hashes of the files that they belong to."""

from collections.abc import Iterable
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


def write_predictions(blocks: Iterable[NDArray[np.floating]], dtype: str) -> None:
    """Write predictions.parquet: a column ``predicted``, with a row group for each block.

    The file keeps the hashes of all that belongs to it, which must be written before.

    Args:
        blocks: The predictions for the rows of each block, in order, shape ``(rows,)``.
        dtype: Their type.
    """
    schema = pa.schema([("predicted", pa.from_numpy_dtype(dtype))], metadata=_origin())
    draft = PREDICTIONS.with_name(f".{PREDICTIONS.name}.draft")
    with pq.ParquetWriter(draft, schema, compression="NONE", use_dictionary=False) as file:
        for block in blocks:
            file.write_batch(pa.record_batch([arrow_column(block)], schema=schema))
    draft.replace(PREDICTIONS)


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
        metadata = self._file.schema_arrow.metadata or {}
        origin = {key.decode(): value.decode() for key, value in metadata.items()}
        if origin != _origin() or self._file.metadata.num_rows != split.num_rows:
            raise UserError(
                f"save: {EVALUATION}, {FIGURE} and {PREDICTIONS} were not made from {WEIGHTS} and"
                f" {STATISTICS}. Run `dvc repro --force evaluate`."
            )

    def read(self, block: int) -> NDArray[Any]:
        """The predictions for the rows of one block, shape ``(rows, 1)``."""
        column = self._file.read_row_group(block, use_threads=False).column(0)
        return np.from_dlpack(column.chunk(0))[:, None]


def _origin() -> dict[str, str]:
    """Return the hashes of the files that must belong to the same model as the predictions."""
    paths = {"figure": FIGURE, "scores": EVALUATION, "statistics": STATISTICS, "weights": WEIGHTS}
    return {name: sha256(path) for name, path in paths.items()}

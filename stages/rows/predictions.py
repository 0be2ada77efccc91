"""The predictions for the rows of a split, with the hashes of the files that they belong to."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.errors import UserError
from stages.base.files import STATISTICS, WEIGHTS, sha256
from stages.rows.split import arrow_column


def write_predictions(
    path: Path, blocks: Iterable[NDArray[np.floating]], dtype: str, origin: dict[str, str]
) -> None:
    """Write a Parquet file of one column, ``predicted``, with a row group for each block.

    Args:
        path: The file.
        blocks: The predictions for the rows of each block, in order, shape ``(rows, 1)``.
        dtype: Their type.
        origin: What `origin_of` returns; the file keeps it beside them.
    """
    schema = pa.schema([("predicted", pa.from_numpy_dtype(dtype))], metadata=origin)
    with pq.ParquetWriter(path, schema, compression="NONE", use_dictionary=False) as file:
        for block in blocks:
            file.write_batch(pa.record_batch([arrow_column(block[:, 0])], schema=schema))


def origin_of(figure: Path, scores: bytes) -> dict[str, str]:
    """Return the hashes of all files that belong to the predictions: none may be of another model.

    Args:
        figure: The figure, or its draft.
        scores: The content of evaluation.json.
    """
    return {
        "figure": sha256(figure),
        "scores": hashlib.sha256(scores).hexdigest(),
        "statistics": sha256(STATISTICS),
        "weights": sha256(WEIGHTS),
    }


class Predictions:
    """A file that `write_predictions` wrote."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = pq.ParquetFile(path)
            if self._file.schema_arrow.names != ["predicted"]:
                raise pa.ArrowInvalid("other columns")
        except (pa.ArrowException, OSError):
            raise UserError(
                f"{path} does not hold predictions. Run `dvc repro --force evaluate`."
            ) from None
        metadata = self._file.schema_arrow.metadata or {}
        self.origin = {key.decode(): value.decode() for key, value in metadata.items()}
        self.num_rows: int = self._file.metadata.num_rows

    def read(self, block: int) -> NDArray[Any]:
        """The predictions for the rows of one block, shape ``(rows, 1)``."""
        column = self._file.read_row_group(block, use_threads=False).column(0)
        return np.from_dlpack(column.chunk(0))[:, None]

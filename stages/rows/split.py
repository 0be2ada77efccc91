"""The prepared rows: which row goes to which split, and each split's file of blocks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from stages.base.errors import UserError, is_out_of_memory
from stages.base.files import STATISTICS
from stages.base.params import StrictModel

SPLITS = ("train", "validation", "test")
LABELS_AT_ONCE = 2**16
SHUFFLE = 2  # the random numbers of the split start from [seed, SHUFFLE]

Floats = NDArray[Any]  # float32 or float64


def block_rows(num_columns: int) -> int:
    """Return the rows of a block, 2 to 4 MB of float32; they depend only on ``num_columns``."""
    return 1 << max(1_000_000 // num_columns, 1).bit_length() - 1


def split_labels(
    sizes: tuple[int, ...], order: Literal["random", "ordered"], seed: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield the index of every row's split, for 65,536 rows at a time.

    A random split is drawn without replacement: every choice of rows is equally likely. It depends
    only on the sizes and the seed.
    """
    generator = np.random.default_rng([seed, SHUFFLE])
    left = np.array(sizes)
    while num_rows := min(LABELS_AT_ONCE, int(left.sum())):
        counts = np.diff(np.minimum(np.cumsum(left), num_rows), prepend=0)
        if order == "random":
            counts = generator.multivariate_hypergeometric(left, num_rows)
        labels = np.repeat(np.arange(len(sizes), dtype=np.uint8), counts)
        if order == "random":
            generator.shuffle(labels)
        left -= counts
        yield labels


class Statistics(StrictModel):
    """The content of statistics.json: columns, rows per split, statistics of the training rows.

    ``columns`` are the features in order, then the target. Each category is one feature.

    The standard deviation is the population's: it divides by the number of rows. It is 0 for a
    column that varies by less than about 1e-149.
    """

    columns: list[str]
    categories: dict[str, list[str]]
    fill: dict[str, float]  # what stands for a missing cell of each column of numbers
    filled: dict[str, int]  # how many cells were filled, by column
    rows: dict[str, int]
    mean: dict[str, float]
    standard_deviation: dict[str, float]
    minimum: dict[str, float]
    maximum: dict[str, float]

    def units(self) -> NDArray[np.float64]:
        """Return the means and, below them, the standard deviations, shape ``(2, columns)``."""
        rows = self.mean, self.standard_deviation
        return np.array([[row[name] for name in self.columns] for row in rows])


class SplitWriter:
    """A Parquet file being written; its row groups are the blocks, however the rows arrive."""

    def __init__(self, path: Path, columns: list[str], dtype: str) -> None:
        self.schema = pa.schema([(name, pa.from_numpy_dtype(dtype)) for name in columns])
        self.file = pq.ParquetWriter(path, self.schema, compression="NONE", use_dictionary=False)
        self.block = np.empty((block_rows(len(columns)), len(columns)), dtype)
        self.filled = 0

    def write(self, rows: Floats) -> None:
        """Append rows, shape ``(rows, columns)``."""
        while len(rows):
            count = min(len(rows), len(self.block) - self.filled)
            self.block[self.filled : self.filled + count] = rows[:count]
            self.filled += count
            rows = rows[count:]
            if self.filled == len(self.block):
                self._write_block()

    def close(self) -> None:
        """Write the remaining rows and close the file."""
        if self.filled:
            self._write_block()
        self.file.close()

    def _write_block(self) -> None:
        columns = [arrow_column(column) for column in self.block[: self.filled].T]
        self.file.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        self.filled = 0


def arrow_column(numbers: NDArray[np.floating]) -> pa.Array:
    """Return an Arrow column without missing cells; pa.array() would import pandas."""
    kind, content = pa.from_numpy_dtype(numbers.dtype), pa.py_buffer(numbers.copy())
    return pa.Array.from_buffers(kind, len(numbers), [None, content])


class Split:
    """A file of prepared rows; any thread may read its blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.metadata = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from None
        schema = self.metadata.schema.to_arrow_schema()
        kinds = {str(kind) for kind in schema.types}
        if len(schema.names) < 2 or kinds not in ({"float"}, {"double"}):
            raise _damaged(path, "its columns are not of one floating-point type")
        self.dtype = "float32" if kinds == {"float"} else "float64"
        *self.features, self.target = schema.names
        self.num_rows: int = self.metadata.num_rows
        self.num_blocks: int = self.metadata.num_row_groups
        self.block_rows = block_rows(len(schema.names))

    def read(self, block: int) -> Floats:
        """Read one block, shape ``(rows, columns)``: features, then the target."""
        return np.column_stack(self.read_columns(block))

    def read_columns(self, block: int, names: list[str] | None = None) -> list[Floats]:
        """Read all or some columns of one block, shape ``(rows,)`` each."""
        try:
            with pq.ParquetFile(self.path, metadata=self.metadata) as file:
                table = file.read_row_group(block, names, use_threads=False)
            if any(column.null_count for column in table.columns):
                raise pa.ArrowInvalid("missing cells")
            return [np.from_dlpack(column.chunk(0)) for column in table.columns]
        except (pa.ArrowException, OSError) as error:
            if is_out_of_memory(error):
                raise MemoryError from error
            raise _damaged(self.path, error) from None


def read_statistics(training: Split) -> Statistics:
    """Read statistics.json, and check that it describes the training rows.

    Raises:
        UserError: If the file is missing, or does not describe these rows, or there are no rows.
    """
    try:
        statistics = Statistics.model_validate_json(STATISTICS.read_bytes())
    except OSError as error:
        raise _damaged(STATISTICS, error) from None
    except ValidationError:
        raise _damaged(STATISTICS, "it does not hold what `prepare` writes") from None
    columns = [*training.features, training.target]
    if statistics.columns != columns or not training.num_rows:
        raise _damaged(STATISTICS, f"it does not describe the rows in {training.path}")
    return statistics


def _damaged(path: Path, cause: object) -> UserError:
    if isinstance(cause, FileNotFoundError):
        return UserError(f"{path} does not exist. Run `dvc repro`, or `python -m stages.prepare`.")
    reason = str(cause).splitlines()[0].rstrip(".")
    return UserError(f"{path} is damaged: {reason}. Run `dvc repro --force prepare`.")

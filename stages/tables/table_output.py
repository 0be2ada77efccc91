"""Write a table batch by batch: CSV, TSV or Parquet, or CSV to the standard output."""

import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.errors import UserError
from stages.base.files import draft_of
from stages.tables.table import FORMATS, PARQUET

Write = Callable[[Sequence[pa.Array]], None]


@contextmanager
def table_output(
    path: str, names: list[str], delimiter: str = ",", decimal: str = "."
) -> Iterator[Write]:
    """Yield a function that appends a batch's columns.

    ``delimiter`` is that of CSV; ``decimal`` is the sign in the numbers of CSV and TSV. The file
    appears when it is complete. After an error, an older file stays as it was.
    """
    if path == "-":
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end if the reader, such as `head`, ends
        with _writer(sys.stdout.buffer, names, ".csv", delimiter, decimal) as write:
            yield write
        sys.stdout.buffer.flush()
        return
    final = Path(path).resolve()  # write the file that a link points to
    suffix = final.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"--output must end in .csv, .tsv or .parquet. Got {path}.")
    draft = draft_of(final)
    try:
        with draft.open("wb") as file, _writer(file, names, suffix, delimiter, decimal) as write:
            yield write
        if final.exists():
            shutil.copymode(final, draft)
        draft.replace(final)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _writer(
    file: IO[bytes], names: list[str], suffix: str, delimiter: str, decimal: str
) -> Iterator[Write]:
    """Yield a function that writes a batch; the first batch also starts the file."""
    delimiter = "\t" if suffix == ".tsv" else delimiter
    parquet: pq.ParquetWriter | None = None
    is_started = False

    def write(columns: Sequence[pa.Array]) -> None:
        nonlocal parquet, is_started
        try:
            if suffix != PARQUET:
                header = [] if is_started else [[pa.array([name]) for name in names]]
                for cells in (*header, columns):
                    file.write(_to_text(cells, delimiter, decimal))
            else:
                batch = pa.RecordBatch.from_arrays([*columns], names)
                parquet = parquet or pq.ParquetWriter(file, batch.schema)
                parquet.write_batch(batch.cast(parquet.schema))
        except pa.ArrowException as error:
            raise UserError(
                f"The table cannot be written as {suffix}: {error}. Write another format, or give"
                " each column one type of numbers or text."
            ) from None
        is_started = True

    try:
        yield write
        if not is_started:  # a table without rows
            write([pa.array([], pa.string()) for _ in names])
    finally:
        if parquet:
            parquet.close()


def _to_text(columns: Sequence[pa.Array], delimiter: str, decimal: str) -> bytes:
    """The lines of a batch."""
    cells = [_to_cells(column, delimiter, decimal) for column in columns]
    cells[-1] = pc.binary_join_element_wise(cells[-1], "\n", "")
    lines = pc.binary_join_element_wise(*cells, delimiter)
    content = lines.buffers()[2]  # all lines, one after the other
    return content[: pc.sum(pc.binary_length(lines)).as_py() or 0] if content else b""


def _to_cells(column: pa.Array, delimiter: str, decimal: str) -> pa.Array:
    """Text; with quotes around a cell that holds a delimiter, a quote or a line break."""
    cells = pc.fill_null(pc.cast(column, pa.string()), "")
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        cells = pc.replace_substring(cells, ".", decimal)
    needs_quotes = pc.match_substring_regex(cells, rf'["\r\n\x{ord(delimiter):02x}]')
    if not pc.any(needs_quotes).as_py():
        return cells
    doubled = pc.replace_substring(cells, '"', '""')
    return pc.if_else(needs_quotes, pc.binary_join_element_wise('"', doubled, '"', ""), cells)

"""Write a table batch by batch: CSV, TSV or Parquet, or CSV to the standard output."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.errors import UserError
from stages.tables.table import DELIMITERS, PARQUET

BROKEN_PIPE = 141  # the exit status in a shell of a program that SIGPIPE has ended
Write = Callable[[Sequence[pa.Array]], None]


@contextmanager
def table_output(path: str, names: list[str]) -> Iterator[Write]:
    """Yield a function that appends a batch's columns.

    The file appears when it is complete. After an error, an older file stays as it was.
    """
    if path == "-":
        try:
            yield _text_writer(sys.stdout.buffer, names, ",")
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # Python flushes it at exit
            sys.exit(BROKEN_PIPE)
        return
    final = Path(path).resolve()  # write the file that a link points to
    suffix = final.suffix.lower()
    if final.is_dir() or not final.parent.is_dir():
        raise UserError(f"--output must be a file in an existing folder. Got {path}.")
    if suffix not in {*DELIMITERS, PARQUET}:
        raise UserError(f"--output must end in .csv, .tsv or .parquet. Got {path}.")
    draft = final.with_name(f".{final.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            if suffix == PARQUET:
                with _parquet_writer(file, names) as write:
                    yield write
            else:
                yield _text_writer(file, names, DELIMITERS[suffix])
        if final.exists():
            shutil.copymode(final, draft)
        draft.replace(final)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _parquet_writer(file: IO[bytes], names: list[str]) -> Iterator[Write]:
    writer: pq.ParquetWriter | None = None

    def write(columns: Sequence[pa.Array]) -> None:
        nonlocal writer
        if writer is None:
            writer = pq.ParquetWriter(file, pa.RecordBatch.from_arrays([*columns], names).schema)
        try:
            cast = [pc.cast(c, kind) for c, kind in zip(columns, writer.schema.types, strict=True)]
        except pa.ArrowException as error:
            raise UserError(
                "A column has different types in different files, which Parquet cannot store:"
                f" {error}. Write CSV, or give the column one type in all files."
            ) from None
        writer.write_batch(pa.RecordBatch.from_arrays(cast, names))

    try:
        yield write
    finally:
        if writer is None:  # a table without rows
            writer = pq.ParquetWriter(file, pa.schema([(name, pa.string()) for name in names]))
        writer.close()


def _text_writer(file: IO[bytes], names: list[str], delimiter: str) -> Write:
    """Write CSV; quote a cell only if it holds a delimiter, a quote or a line break."""

    def write(columns: Sequence[pa.Array]) -> None:
        cells = [_quoted(_as_text(column), delimiter) for column in columns]
        cells[-1] = pc.binary_join_element_wise(cells[-1], "\n", "")
        lines = pc.binary_join_element_wise(*cells, delimiter)
        content = lines.buffers()[2]  # all lines, one after the other
        if content is not None:
            file.write(content[: pc.sum(pc.binary_length(lines)).as_py() or 0])

    write([pa.array([name]) for name in names])
    return write


def _as_text(column: pa.Array) -> pa.Array:
    try:
        return pc.fill_null(pc.cast(column, pa.string()), "")
    except pa.ArrowException:
        raise UserError(
            f"A column of {column.type} cannot be written as text. Give --output a .parquet file."
        ) from None


def _quoted(cells: pa.Array, delimiter: str) -> pa.Array:
    needs_quotes = pc.match_substring_regex(cells, rf'["\r\n\x{ord(delimiter):02x}]')
    if not pc.any(needs_quotes).as_py():
        return cells
    doubled = pc.replace_substring(cells, '"', '""')
    return pc.if_else(needs_quotes, pc.binary_join_element_wise('"', doubled, '"', ""), cells)

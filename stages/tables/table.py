"""Read a user's table, one file or a folder of files, batch by batch."""

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from stages.base.errors import UserError
from stages.tables.quotes import QuoteCheck

BATCH_BYTES = 2**20  # of text; also the read-ahead of a column in a large Parquet file
BATCH_CELLS = 2**18
# A batch of very many columns still has about a thousand rows:
COLUMN_BYTES = 2**13
MIN_BATCH_ROWS = 2**10
MAX_ROW_BYTES = 2**25
DELIMITERS = {".csv": ",", ".tsv": "\t"}  # by suffix; a CSV file may have another
PARQUET = ".parquet"
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
UNREADABLE = pa.ArrowException, OSError, UnicodeDecodeError


class Batch(NamedTuple):
    """Some rows of a table, as Arrow reads them: one array per requested column."""

    columns: list[pa.Array]
    fraction_read: float  # of the table, after this batch


class Cures(NamedTuple):
    """What the user must correct if the table is missing or has another delimiter."""

    source: str = "`prepare.source`"
    delimiter: str = "`prepare.delimiter`"


class TableFile(Protocol):
    """One file of a table."""

    path: Path
    names: list[str]

    def batches(self, columns: list[str]) -> Iterator[Batch]:
        """Read the rows, in order."""

    def locate(self, row: int) -> str:
        """Say where a row is in the file; rows count from 0."""


class Table:
    """A table in one file, or in all files of a folder in the order of their names."""

    def __init__(self, path: Path, delimiter: str = ",", cures: Cures = Cures()) -> None:  # noqa: B008 (immutable)
        self.path, self.cures = path, cures
        files = _files(path, cures)
        self._files: list[TableFile] = [_open(file, delimiter, cures) for file in files]
        self._first_rows: list[int] = []  # of the files read so far
        self.names = self._files[0].names
        for file in self._files:
            repeated = repeated_names(file.names)
            if repeated:
                problem = f"more than one column {listed(repeated)}. Give each its own name."
                raise UserError(f"{file.path}: {problem}")
            if not file.names:
                raise UserError(f"{file.path} has no columns. Correct the file.")
        others = [file for file in self._files if {*file.names} != {*self.names}]
        if others:
            raise UserError(
                f"{others[0].path} has other columns than {self._files[0].path}:"
                f" {listed(sorted({*others[0].names} ^ {*self.names}))}. Give all files of a folder"
                " the same columns."
            )

    def batches(self, columns: list[str]) -> Iterator[Batch]:
        """Read the rows of all files."""
        sizes = [file.path.stat().st_size for file in self._files]
        num_rows = num_bytes = 0
        self._first_rows.clear()
        for file, size in zip(self._files, sizes, strict=True):
            self._first_rows.append(num_rows)
            for batch in file.batches(columns):
                yield batch._replace(
                    fraction_read=(num_bytes + batch.fraction_read * size) / sum(sizes)
                )
                num_rows += len(batch.columns[0])
            num_bytes += size

    def locate(self, row: int) -> str:
        """The file, and the line or row in it, of a row that has been read."""
        first, file = max(
            (first, index) for index, first in enumerate(self._first_rows) if first <= row
        )
        return f"{self._files[file].path}, {self._files[file].locate(row - first)}"


class TextFile:
    """A CSV or TSV file in UTF-8, which may be compressed. Names lose their outer spaces."""

    def __init__(self, path: Path, delimiter: str, compression: str | None, cures: Cures) -> None:
        self.path, self._delimiter, self._compression = path, delimiter, compression
        self._cures = cures
        header = self._header()
        self.names = [name.strip() for name in header]
        self._raw_names = dict(zip(self.names, header, strict=True))
        self._block_bytes = min(max(BATCH_BYTES, COLUMN_BYTES * len(header)), MAX_ROW_BYTES)

    def batches(self, columns: list[str]) -> Iterator[Batch]:
        """Read the rows as text."""
        raw_names = [self._raw_names[column] for column in columns]
        ragged: list[pa.csv.InvalidRow] = []
        quotes: QuoteCheck | None = None

        def note_ragged(row: pa.csv.InvalidRow) -> str:
            ragged.append(row)
            return "skip"

        hook = sys.unraisablehook
        # If the last row is not UTF-8, Arrow also prints a traceback beside its own error.
        sys.unraisablehook = lambda fault: (
            None if fault.exc_type is UnicodeDecodeError else hook(fault)
        )
        try:
            with pa.OSFile(str(self.path)) as file, self._decompressed(file) as stream:
                quotes = QuoteCheck(stream, self._delimiter)
                reader = pa.csv.open_csv(
                    quotes,
                    pa.csv.ReadOptions(use_threads=False, block_size=self._block_bytes),
                    pa.csv.ParseOptions(
                        delimiter=self._delimiter,
                        newlines_in_values=True,
                        invalid_row_handler=note_ragged,
                    ),
                    pa.csv.ConvertOptions(
                        column_types=dict.fromkeys(raw_names, pa.string()),
                        include_columns=raw_names,
                    ),
                )
                for batch in reader:
                    if ragged:
                        break
                    yield Batch(batch.columns, file.tell() / file.size())
        except UNREADABLE as error:
            self._require_rules(quotes)
            raise self._unreadable(error) from None
        finally:
            sys.unraisablehook = hook
        self._require_rules(quotes)
        if ragged:
            first = ragged[0]
            raise UserError(
                f"{self.path}, {self.locate(first.number - 2)}: {first.actual_columns} instead of"
                f" {first.expected_columns} cells. Correct the file, or {self._cures.delimiter}."
            )

    def _require_rules(self, quotes: QuoteCheck | None) -> None:
        """If a quote breaks the rules of CSV, read the file again with Python to name its line."""
        if quotes and not quotes.is_regular():
            for _ in self._rows(errors="replace", strict=True):
                pass

    def locate(self, row: int) -> str:
        """The row's first line in the file; empty lines do not count as rows."""
        with suppress(UserError):
            for number, (line, _) in enumerate(self._rows(errors="replace"), start=-1):
                if number == row:
                    return f"line {line}"
        return f"row {row + 1}"  # the file breaks rules of CSV that Arrow does not check

    def _header(self) -> list[str]:
        try:
            for _, row in self._rows(errors="strict"):
                if any("\n" in name for name in row):  # perhaps a quote is not closed
                    next(self._rows(errors="replace", strict=True))
                return row
        except UNREADABLE as error:
            raise self._unreadable(error) from None
        raise UserError(f"{self.path} is empty. Put a table with a header and rows there.")

    def _rows(self, errors: str, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(sys.maxsize)
        with pa.OSFile(str(self.path)) as file, self._decompressed(file) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors=errors, newline="")
            lines: Iterable[str] = text
            if strict:  # spaces after a closing quote are allowed: cells are trimmed
                spaces = re.compile(rf'"[ \t]+(?=[{re.escape(self._delimiter)}\r\n]|$)')
                lines = (spaces.sub('"', line) for line in text)
            reader = csv.reader(lines, delimiter=self._delimiter, strict=strict)
            line = 1
            try:
                for row in reader:
                    if row:
                        yield line, row
                    line = reader.line_num + 1
            except csv.Error as error:
                problem = "a quote is not closed" if "end of data" in str(error) else str(error)
                raise UserError(
                    f"{self.path}, line {line}: {problem}. Put quotes around the whole cell, and"
                    " double each quote inside it."
                ) from None

    def _decompressed(self, file: pa.NativeFile) -> pa.NativeFile:
        return pa.CompressedInputStream(file, self._compression) if self._compression else file

    def _unreadable(self, error: Exception) -> UserError:
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            return UserError(f"{self.path} is not UTF-8 text. Save it as UTF-8.")
        if "straddling" in str(error):
            most = f"{self._block_bytes >> 20} MiB"
            return UserError(f"{self.path}: a row is longer than {most}. Shorten it.")
        return UserError(f"{self.path}: {str(error).rstrip('.')}. Correct the file.")


class ParquetFile:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.names: list[str] = pq.read_schema(path).names
        except UNREADABLE as error:
            raise UserError(f"{path} is not a Parquet file: {error}. Correct the file.") from None

    def batches(self, columns: list[str]) -> Iterator[Batch]:
        """Read the rows as they are stored."""
        num_rows = 0
        try:
            is_large = self.path.stat().st_size > MAX_ROW_BYTES
            # Without a buffer, a damaged page size does not make Arrow allocate that much memory.
            buffer = BATCH_BYTES if is_large else 0
            with pq.ParquetFile(self.path, buffer_size=buffer, pre_buffer=False) as file:
                batch_rows = max(MIN_BATCH_ROWS, BATCH_CELLS // len(columns))
                for batch in file.iter_batches(batch_rows, columns=columns):
                    num_rows += len(batch)
                    fraction = num_rows / max(1, file.metadata.num_rows)
                    yield Batch([batch.column(name) for name in columns], fraction)
        except UNREADABLE as error:
            raise UserError(f"{self.path} is damaged: {error}. Correct the file.") from None

    def locate(self, row: int) -> str:
        """The row's number, from 1."""
        return f"row {row + 1}"


def repeated_names(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def require_delimiter(table: Table, needed: set[str]) -> None:
    """Check that the delimiter is right.

    Raises:
        UserError: If the only column is not needed and its name contains another delimiter.
    """
    [name, *others] = table.names
    delimiters = [delimiter for delimiter in ";\t|," if delimiter in name]
    if delimiters and not others and name not in needed:
        raise UserError(
            f"{table.path}: one column, `{name}`. Set {table.cures.delimiter} to"
            f" {json.dumps(delimiters[0])}."
        )


def listed(names: Sequence[str]) -> str:
    """The first ten names, in backticks."""
    return ", ".join(f"`{name}`" for name in names[:10]) + (", …" if names[10:] else "")


def _files(path: Path, cures: Cures) -> list[Path]:
    """The files of a table; a folder's files that begin with a dot or _ are ignored."""
    if not path.exists():
        raise UserError(f"There is no file {path}. Put the table there, or correct {cures.source}.")
    if not path.is_dir():
        return [path]
    files = [file for file in sorted(path.iterdir()) if not file.name.startswith((".", "_"))]
    if not files:
        raise UserError(f"{path} is an empty folder. Put the table's files there.")
    kinds = {_kind(file)[0] for file in files}
    if len(kinds) > 1:
        raise UserError(
            f"{path} holds files of several kinds: {', '.join(sorted(map(str, kinds)))}. Keep"
            " one kind in a folder."
        )
    return files


def _open(path: Path, delimiter: str, cures: Cures) -> TableFile:
    suffix, compression = _kind(path)
    is_table = suffix in DELIMITERS or (suffix == PARQUET and not compression)
    if not is_table or not path.is_file():
        raise UserError(
            f"{path} is not a table. Save it as .csv, .tsv (also .gz or .zst) or .parquet."
            ' In Excel, save it as "CSV UTF-8".'
        )
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty. Put a table with a header and rows there.")
    if suffix == PARQUET:
        return ParquetFile(path)
    return TextFile(path, "\t" if suffix == ".tsv" else delimiter, compression, cures)


def _kind(path: Path) -> tuple[str, str | None]:
    """The suffix of the format, and the name of the compression."""
    *_, format_suffix, last = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    if last in COMPRESSIONS:
        return format_suffix, COMPRESSIONS[last]
    return last, None

"""Read a user's table batch by batch: a CSV, TSV or Parquet file, or a folder of such files."""

import difflib
import json
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from stages.base.errors import UserError

BATCH_BYTES = 2**20  # of text; also the read-ahead of a column in a large Parquet file
BATCH_CELLS = 2**18
COLUMN_BYTES = 2**13  # so a batch of very many columns still has about a thousand rows
MIN_BATCH_ROWS = 2**10
MAX_ROW_BYTES = 2**25
HEADER_BYTES = 2**22  # a header and the row below it
PARQUET = ".parquet"
FORMATS = ".csv", ".tsv", PARQUET
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


class Batch(NamedTuple):
    """Some rows of a table, as Arrow reads them: one array per requested column."""

    columns: list[pa.Array]
    fraction_read: float  # of the file or table, after this batch
    file: str
    first_row: int  # its number in the file


class TableFile:
    """A CSV or TSV file in UTF-8, which may be compressed, or a Parquet file."""

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path = path
        self.names: list[str] = []
        self.index: list[str] = []  # columns that are an index of pandas
        self._format, self._compression = format_of(path)
        self.delimiter = "\t" if self._format == ".tsv" else delimiter
        if self._format not in FORMATS:
            raise UserError(
                f"{path} is not a table. Save it as .csv, .tsv (also .gz or .zst) or .parquet."
                ' In Excel, save it as "CSV UTF-8".'
            )
        if self._format == PARQUET:
            with self._opened() as (file, _):
                schema = pq.read_schema(file)
                self.index = (schema.pandas_metadata or {}).get("index_columns", [])
            self._raw_names = self.names = schema.names
            return
        with self._opened() as (_, stream):
            first_line = stream.read(HEADER_BYTES).partition(b"\n")[0]
            header = first_line.decode("utf-8-sig").strip()
        others = [character for character in ";\t|," if character in header]
        if self._format != ".tsv" and others and self.delimiter not in header:
            delimiter = json.dumps(others[0])
            raise UserError(f"{path}: one column, `{header}`. Set the delimiter to {delimiter}.")
        with self._opened() as (_, stream):
            line = faulty_quote_line(stream, self.delimiter)
        if line:
            raise UserError(
                f"{path}, line {line}: a quote does not open or close a whole cell. Put quotes"
                " around the whole cell, and double each quote inside it."
            )
        with self._opened() as (_, stream):
            self._raw_names = self._csv(stream).schema.names
        self.names = [name.strip() for name in self._raw_names]

    def batches(self, columns: list[str]) -> Iterator[Batch]:
        """Read the rows: text as text, the columns of Parquet as they are stored."""
        raw_names = dict(zip(self.names, self._raw_names, strict=True))
        names = [raw_names[column] for column in columns]
        row = 1 if self._format == PARQUET else 2  # as in a spreadsheet, row 1 is the header
        with self._opened() as (file, stream):
            size = file.size()
            if self._format == PARQUET:
                # Without a buffer, a damaged page size does not make Arrow allocate its memory.
                buffer = BATCH_BYTES if size > MAX_ROW_BYTES else 0
                batch_rows = max(MIN_BATCH_ROWS, BATCH_CELLS // len(columns))
                parquet = pq.ParquetFile(file, buffer_size=buffer, pre_buffer=False)
                reader = parquet.iter_batches(batch_rows, columns=names)
            else:
                reader = self._csv(stream, names)
            for batch in reader:
                arrays = [batch.column(name) for name in names]
                yield Batch(arrays, file.tell() / size, str(self.path), row)
                row += len(batch)

    def _csv(self, stream: pa.NativeFile, names: Sequence[str] = ()) -> pa.csv.CSVStreamingReader:
        block_bytes = HEADER_BYTES
        if self.names:
            block_bytes = min(max(BATCH_BYTES, COLUMN_BYTES * len(self.names)), MAX_ROW_BYTES)
        types = dict.fromkeys(names, pa.string())
        return pa.csv.open_csv(
            stream,
            pa.csv.ReadOptions(use_threads=False, block_size=block_bytes),
            pa.csv.ParseOptions(
                delimiter=self.delimiter,
                newlines_in_values=True,
                ignore_empty_lines=len(self.names) != 1,  # in one column, they are empty cells
            ),
            pa.csv.ConvertOptions(column_types=types, include_columns=names),
        )

    @contextmanager
    def _opened(self) -> Iterator[tuple[pa.NativeFile, pa.NativeFile]]:
        """Yield the file and its decompressed stream; what Arrow cannot read is one sentence."""
        try:
            with pa.OSFile(str(self.path)) as file:
                kind = self._compression
                yield file, pa.CompressedInputStream(file, kind) if kind else file
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
                raise UserError(f"{self.path} is not UTF-8 text. Save it as UTF-8.") from None
            problem = str(error).rstrip(".")
            raise UserError(f"{self.path} is damaged: {problem}. Correct the file.") from None


class Table:
    """A table in one file, or in all files of a folder in the order of their names."""

    def __init__(self, path: Path, delimiter: str = ",") -> None:
        self.path = path
        self._files = [TableFile(file, delimiter) for file in _files(path)]
        first = self._files[0]
        self.names, self.index = first.names, first.index
        self.has_types = format_of(first.path)[0] == PARQUET
        self.delimiter = first.delimiter
        for file in self._files:
            if repeated := repeated_names(file.names):
                problem = f"more than one column {listed(repeated)}. Give each its own name."
                raise UserError(f"{file.path}: {problem}")
            if others := sorted({*file.names} ^ {*first.names}):
                problem = f"has other columns than {first.path}: {listed(others)}"
                raise UserError(f"{file.path} {problem}. Give all files the same columns.")

    def batches(self, columns: list[str]) -> Iterator[Batch]:
        """Read the rows of all files."""
        for number, file in enumerate(self._files):
            for batch in file.batches(columns):
                fraction_read = (number + batch.fraction_read) / len(self._files)
                yield batch._replace(fraction_read=fraction_read)


def require_columns(where: str, names: Sequence[str], needed: Collection[str], cure: str) -> None:
    """Check that a table has the needed columns."""
    if missing := sorted({*needed} - {*names}):
        close = [name for item in missing for name in difflib.get_close_matches(item, names, n=1)]
        likely = f" Did you mean {listed([*dict.fromkeys(close)])}?" if close else ""
        raise UserError(
            f"{where}: no column {listed(missing)}.{likely} {cure}; the columns are"
            f" {listed(names)}."
        )


def repeated_names(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def listed(names: Sequence[str]) -> str:
    """The first ten names, in backticks."""
    return ", ".join(f"`{name}`" for name in names[:10]) + (", …" if names[10:] else "")


def format_of(path: Path) -> tuple[str, str | None]:
    """The suffix of the format, and the name of the compression."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    return (path.with_suffix("") if compression else path).suffix.lower(), compression


def _files(path: Path) -> list[Path]:
    """The files of a table; a folder's files that begin with a dot or _ are ignored."""
    if not path.exists():
        raise UserError(f"There is no file {path}. Put the table there, or correct its name.")
    if not path.is_dir():
        return [path]
    files = [file for file in sorted(path.iterdir()) if not file.name.startswith((".", "_"))]
    formats = sorted({format_of(file)[0] for file in files})
    if len(formats) != 1:  # several formats may hold the same rows twice
        kinds = ", ".join(formats) or "no format"
        raise UserError(f"{path} holds files of {kinds}. Put files of one format there.")
    return files


def faulty_quote_line(stream: pa.NativeFile, delimiter: str) -> int | None:
    """Find a quote that would make Arrow join rows unnoticed, and return its line, if there is any.

    An opening quote must follow a delimiter or a line break, and a closing quote must precede one.
    A doubled quote inside a cell counts as a closing and an opening quote.
    """
    is_edge = np.zeros(256, bool)
    is_edge[[*b'"\r\n', ord(delimiter)]] = True
    text = b"\n" + stream.read(BATCH_BYTES).removeprefix(BOM_UTF8)
    num_breaks = num_quotes = quote_line = 0  # the break before the file makes its first line 1
    while True:
        content = stream.read(BATCH_BYTES)
        text += content or b"\n"
        if b'"' in text:
            characters = np.frombuffer(text, np.uint8)
            places = np.flatnonzero(characters[1:-1] == ord('"')) + 1
            closes = (np.arange(len(places)) + num_quotes) % 2
            faulty = places[~is_edge[characters[places + 2 * closes - 1]]]
            if len(faulty):
                return num_breaks + text.count(b"\n", 0, faulty[0])
            num_quotes += len(places)
            if len(places):
                quote_line = num_breaks + text.count(b"\n", 0, places[-1])
        if not content:
            return quote_line if num_quotes % 2 else None  # the last quote is not closed
        num_breaks += text.count(b"\n", 0, len(text) - 2)
        text = text[-2:]  # the second byte has not been checked yet

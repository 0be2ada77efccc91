"""A user's table of numbers: CSV, TSV or Parquet, read batch by batch, checked cell by cell."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.parts.errors import UserError
from stages.parts.params import PrepareParams

BATCH_BYTES = 2**22
BATCH_ROWS = 2**16
SHOWN_FAULTS = 3
SHOWN_CHARACTERS = 60
UNREADABLE = pa.ArrowException, OSError, UnicodeDecodeError

Batches = Iterator[NDArray[np.float64]]
Numbers = tuple[NDArray[np.float64], NDArray[np.bool_]]  # NaN where missing; True where no number


def read_table(path: Path, params: PrepareParams) -> tuple[list[str], Batches]:
    """Open a table.

    Returns:
        Its chosen columns, features before target; and their cells as float64 batches of shape
        ``(rows, columns)``, each the double nearest to the file's number. With ``missing: drop``
        a missing cell is NaN.

    Raises:
        UserError: For a fault of the file or its columns; for faulty cells at the end of the
            batches, naming the first ones.
    """
    if not path.is_file():
        raise UserError(
            f"There is no file {path}. Put the table there, or correct `prepare.source`."
        )
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty. Put a table with a header and rows there.")
    open_table = _open_parquet if path.suffix.lower() == ".parquet" else _open_text
    return open_table(path, params)


def choose_columns(where: str, names: list[str], params: PrepareParams) -> list[str]:
    """The chosen features, then the target.

    Raises:
        UserError: If a name is not in the table or stands there twice, or no feature is left.
    """
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        listed = ", ".join(f"`{name}`" for name in repeated)
        raise UserError(f"{where}: more than one column {listed}. Give each its own name.")
    features = params.features
    if features is None:
        features = [name for name in names if name != params.target]
    unknown = [("target", params.target)] if params.target not in names else []
    unknown += [("features", name) for name in features if name not in names]
    if unknown:
        listed = ", ".join(f"`{name}`" for name in names[:10]) + (", …" if names[10:] else "")
        faults = [
            f"{where}: no column `{name}`. Correct `prepare.{key}`; the columns are {listed}."
            for key, name in sorted(unknown)
        ]
        raise UserError("\n".join(faults))
    taken = {"intercept", *(f"{name}_std_error" for name in features)} & {*features}
    if taken:
        listed = ", ".join(f"`{name}`" for name in sorted(taken))
        raise UserError(
            f"{where}: the column names {listed} are taken by metrics/evaluation.json. Rename them."
        )
    if not features:
        raise UserError(
            f"{where}: no column but the target, `{params.target}`. Add one to learn from."
        )
    return [*features, params.target]


def _open_text(path: Path, params: PrepareParams) -> tuple[list[str], Batches]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else params.delimiter
    header = _header(path, delimiter)
    columns = choose_columns(str(path), [name.strip() for name in header], params)
    by_name = {name.strip(): name for name in header}
    raw_names = [by_name[column] for column in columns]

    def batches() -> Iterator[list[pa.Array]]:
        ragged: list[pa.csv.InvalidRow] = []

        def note_ragged(row: pa.csv.InvalidRow) -> str:
            ragged.append(row)
            return "skip"

        hook = sys.unraisablehook
        # Arrow reports a last row that is no UTF-8 to Python, too, beside its own error.
        sys.unraisablehook = lambda fault: (
            None if fault.exc_type is UnicodeDecodeError else hook(fault)
        )
        try:
            reader = pa.csv.open_csv(
                path,
                pa.csv.ReadOptions(use_threads=False, block_size=BATCH_BYTES),
                pa.csv.ParseOptions(
                    delimiter=delimiter,
                    newlines_in_values=True,
                    invalid_row_handler=note_ragged,
                ),
                pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(raw_names, pa.string()), include_columns=raw_names
                ),
            )
            for batch in reader:
                if ragged:
                    break
                yield batch.columns
        except pa.ArrowInvalid as error:
            if "UTF8" in str(error):
                raise UserError(f"{path} is not UTF-8 text. Save it as UTF-8.") from None
            raise UserError(f"{path}: {error}. Correct the file.") from None
        finally:
            sys.unraisablehook = hook
        if ragged:
            first = ragged[0]
            line = _line(path, delimiter, first.number - 1)
            raise UserError(
                f"{path}, {line}: {first.actual_columns} instead of {first.expected_columns} cells."
                " Correct the file, or `prepare.delimiter`."
            )

    def locate(row: int) -> str:
        return f"{path}, {_line(path, delimiter, row + 1)}"

    return columns, _checked(batches(), columns, params, _text_parser(params), locate)


def _open_parquet(path: Path, params: PrepareParams) -> tuple[list[str], Batches]:
    try:
        file = pq.ParquetFile(path)
    except UNREADABLE as error:
        raise UserError(f"{path} is not a Parquet file: {error}. Correct the file.") from None
    schema = file.schema_arrow
    columns = choose_columns(str(path), schema.names, params)
    faults = [
        f"{path}, column `{name}`: holds {schema.field(name).type}, not numbers. Choose other"
        " `prepare.features`, or correct the file."
        for name in columns
        if not _is_numeric(schema.field(name).type)
    ]
    if faults:
        raise UserError("\n".join(sorted(faults)))

    def batches() -> Iterator[list[pa.Array]]:
        try:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                yield [batch.column(name) for name in columns]
        except UNREADABLE as error:
            raise UserError(f"{path} is damaged: {error}. Correct the file.") from None

    def parse(column: pa.Array) -> Numbers:
        if pa.types.is_decimal(column.type):
            column = pc.cast(column, pa.string())  # a cast from decimal to float64 rounds twice
        return _to_numpy(pc.cast(column, pa.float64(), safe=False)), np.zeros(len(column), bool)

    def locate(row: int) -> str:
        return f"{path}, row {row + 1}"

    return columns, _checked(batches(), columns, params, parse, locate)


def _checked(
    batches: Iterable[list[pa.Array]],
    columns: list[str],
    params: PrepareParams,
    parse: Callable[[pa.Array], Numbers],
    locate: Callable[[int], str],
) -> Batches:
    """Parse every cell; after the last batch raise for those that are faulty."""
    markers = [float(m) for m in params.missing_values if not isinstance(m, str)]
    sentences: list[str] = []
    num_faults = num_rows = 0
    for batch in batches:
        numbers, is_text = map(np.column_stack, zip(*map(parse, batch), strict=True))
        if markers:
            numbers = np.where(np.isin(numbers, markers), np.nan, numbers)
        is_faulty = is_text if params.missing == "drop" else is_text | ~np.isfinite(numbers)
        num_faults += int(is_faulty.sum())
        for row, column in np.argwhere(is_faulty)[: SHOWN_FAULTS - len(sentences)]:
            where = f"{locate(num_rows + row)}, column `{columns[column]}`"
            choice = "features" if column < len(columns) - 1 else "target"
            what = _fault(batch[column][row].as_py(), bool(is_text[row, column]), choice)
            sentences.append(f"{where}: {what}")
        num_rows += len(numbers)
        if not num_faults:
            yield numbers
    if num_faults > len(sentences):
        sentences.append(f"… and {num_faults - len(sentences)} more such cells.")
    if sentences:
        raise UserError("\n".join(sentences))


def _fault(cell: str | float | None, is_text: bool, choice: str) -> str:
    if is_text:
        return (
            f"not a number: {_show(cell)}. Correct the file, change `prepare.{choice}`, or list it"
            " in `prepare.missing_values` and set `prepare.missing` to drop."
        )
    what = "empty cell" if cell in (None, "") else f"missing or not finite: {_show(cell)}"
    return f"{what}. Set `prepare.missing` to drop, or correct the file."


def _show(cell: str | float | None) -> str:
    text = str(cell)
    return json.dumps(text[:SHOWN_CHARACTERS], ensure_ascii=False) + "…" * (
        len(text) > SHOWN_CHARACTERS
    )


def _text_parser(params: PrepareParams) -> Callable[[pa.Array], Numbers]:
    texts = [marker.strip(" \t") for marker in params.missing_values if isinstance(marker, str)]
    markers = pa.array(["", *texts], pa.string())

    def parse(column: pa.Array) -> Numbers:
        text = pc.utf8_trim(column, characters=" \t")
        text = pc.if_else(pc.is_in(text, value_set=markers), None, text)
        if params.decimal == ",":
            text = pc.replace_substring(pc.replace_substring(text, ".", "?"), ",", ".")
        try:
            numbers, is_text = pc.cast(text, pa.float64()), np.zeros(len(text), bool)
        except pa.ArrowInvalid:
            is_text = np.array([not _is_number(cell) for cell in text])
            numbers = pc.cast(pc.if_else(pa.array(is_text), None, text), pa.float64())
        return _to_numpy(numbers), is_text

    return parse


def _to_numpy(numbers: pa.DoubleArray) -> NDArray[np.float64]:
    return np.asarray(pc.fill_null(numbers, np.nan), np.float64)


def _is_number(cell: pa.StringScalar) -> bool:
    try:
        cell.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _is_numeric(kind: pa.DataType) -> bool:
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return is_number or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)


def _header(path: Path, delimiter: str) -> list[str]:
    try:
        for _, row in _text_rows(path, delimiter, errors="strict"):
            return row
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text. Save it as UTF-8.") from None
    except csv.Error as error:
        raise UserError(f"{path}, line 1: {error}. Correct the file.") from None
    raise UserError(f"{path} is empty. Put a table with a header and rows there.")


def _line(path: Path, delimiter: str, row: int) -> str:
    """Where a row stands in the file; the header is row 0, empty lines are no rows."""
    with suppress(csv.Error):
        for number, (line, _) in enumerate(_text_rows(path, delimiter, errors="replace")):
            if number == row:
                return f"line {line}"
    return f"row {row}"  # the file breaks rules of CSV that Arrow does not insist on


def _text_rows(path: Path, delimiter: str, errors: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", errors=errors, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        line = 1
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1

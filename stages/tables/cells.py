"""Check the cells of a table and turn them into numbers; text cells become categories."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.base.errors import UserError
from stages.base.progress import Progress
from stages.base.threads import in_order
from stages.rows.categories import MAX_CATEGORIES, inputs_of
from stages.tables.faults import Fault, Faults, show
from stages.tables.line import Line
from stages.tables.table import Batch, Table, listed, repeated_names

BOOLEANS = {"false": 0.0, "true": 1.0}
EXPONENT = re.compile(r"(?<=\d)[eE][+-]?\d+$")


class Cells(NamedTuple):
    """A column of a batch: its numbers, NaN where there is none, and its texts, null elsewhere."""

    numbers: NDArray[np.float64]
    texts: pa.DictionaryArray | None

    def where_text(self) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Which cells are text, and the index of each text in the dictionary."""
        assert self.texts is not None
        is_text = np.asarray(pc.is_valid(self.texts))
        return is_text, np.asarray(pc.fill_null(self.texts.indices, 0))


class CellFormat(NamedTuple):
    """How to read the cells of a table: parameters of `prepare`."""

    decimal: str
    missing_values: Sequence[str | float]
    is_missing_allowed: bool
    dtype: str


@dataclass
class Text:
    """A text that occurs in a column."""

    code: int  # in order of appearance
    first_row: int
    num_cells: int = 0


@dataclass
class ColumnTexts:
    """The texts of a column, collected while the table is read."""

    name: str
    is_target: bool = False
    has_numbers: bool = False
    texts: dict[str, Text] = field(default_factory=dict)  # at most 1 + MAX_CATEGORIES
    num_other_texts: int = 0

    def add(self, cells: Cells, first_row: int) -> NDArray[np.float64]:
        """Collect the cells' texts, and return the cells as numbers; a text becomes its code."""
        if cells.texts is None:
            self.has_numbers |= not np.isnan(cells.numbers).all()
            return cells.numbers
        is_text, indices = cells.where_text()
        self.has_numbers |= bool((~is_text & ~np.isnan(cells.numbers)).any())
        values, counts = cells.texts.dictionary.to_pylist(), np.bincount(indices[is_text])
        codes = np.zeros(len(values))
        for index, (value, count) in enumerate(zip(values, counts, strict=True)):
            text = self.texts.get(value)
            if text is None and len(self.texts) > MAX_CATEGORIES:
                self.num_other_texts += int(count)
                continue
            if text is None:
                row = first_row + int((is_text & (indices == index)).argmax())
                text = self.texts[value] = Text(len(self.texts), row)
            text.num_cells += int(count)
            codes[index] = text.code
        return np.where(is_text, codes[indices], cells.numbers)

    def is_boolean(self) -> bool:
        """Whether all texts are true or false."""
        return bool(self.texts) and {text.lower() for text in self.texts} <= {*BOOLEANS}

    def faults(self) -> dict[str, Text]:
        """The texts that make this column faulty."""
        if self.has_numbers or (self.is_target and not self.is_boolean()):
            return self.texts
        return {value: text for value, text in self.texts.items() if is_misread(value)}


class CheckedCells:
    """The chosen columns of a table as numbers; after reading, also the categories.

    A column of text holds categories or booleans. A column of numbers and text is faulty.
    """

    def __init__(self, table: Table | Line, columns: list[str], cell_format: CellFormat) -> None:
        self.columns, self._table, self._format = columns, table, cell_format
        *features, target = columns
        self._columns = [ColumnTexts(name) for name in features]
        self._columns.append(ColumnTexts(target, is_target=True))
        self._faults = Faults()

    def batches(self) -> Iterator[NDArray[np.float64]]:
        """Yield the rows, shape ``(rows, columns)``; a number is the double nearest to the file's.

        With ``missing: drop`` a missing cell is NaN. A text is a code, which ``recode`` replaces.

        Raises:
            UserError: At the end, naming the first faulty cells.
        """
        parse = cell_parser(self._format.missing_values, self._format.decimal)
        num_rows = 0

        def parsed(batch: Batch) -> tuple[Batch, list[Cells]]:
            require_kinds(str(self._table.path), self.columns, batch.columns)
            return batch, [parse(column) for column in batch.columns]

        with Progress("prepare: reading", 1) as progress:
            for batch, cells in in_order(parsed, self._table.batches(self.columns)):
                pairs = zip(self._columns, cells, strict=True)
                rows = np.column_stack([column.add(new, num_rows) for column, new in pairs])
                is_finite = np.isfinite(rows)
                if self._format.dtype == "float32":
                    with np.errstate(over="ignore"):
                        is_too_large = is_finite & np.isinf(rows.astype(np.float32))
                    self._faults.add_where(is_too_large, num_rows, too_large_in(batch))
                if not self._format.is_missing_allowed:
                    self._faults.add_where(~is_finite, num_rows, missing_in(batch))
                num_rows += len(rows)
                progress.update(num_rows, num_rows / (batch.fraction_read or 1))
                if not self._faults.num_cells:
                    yield rows
        self._require_no_faults()

    def categories(self) -> dict[str, list[str]]:
        """The sorted categories of each column of categories."""
        return {
            column.name: sorted(column.texts)
            for column in self._columns
            if column.texts and not column.is_boolean()
        }

    def recode(self, rows: NDArray[np.floating]) -> None:
        """Replace the code of each text by the index of its category, or by 0 or 1."""
        for index, numbers in self._numbers_of_codes.items():
            rows[:, index] = numbers[rows[:, index].astype(int)]

    @cached_property
    def _numbers_of_codes(self) -> dict[int, NDArray[np.float64]]:
        """For the index of each text column: the final number of each code."""
        numbers_of_codes = {}
        for index, column in enumerate(self._columns):
            if column.texts:
                numbers = {text: float(number) for number, text in enumerate(sorted(column.texts))}
                if column.is_boolean():
                    numbers = {text: BOOLEANS[text.lower()] for text in column.texts}
                numbers_of_codes[index] = np.array([numbers[text] for text in column.texts])
        return numbers_of_codes

    def _require_no_faults(self) -> None:
        sentences = []
        for index, column in enumerate(self._columns):
            key = "`prepare.features`"
            if column.is_target:
                key = "`prepare.target` (numbers, or true and false)"
            texts = column.faults()
            faults = []
            for value, text in texts.items():
                cure = "Set `prepare.decimal`, correct" if {*value} & {*".,"} else "Correct"
                problem = (
                    f"not a number: {show(value)}. {cure} the file, change {key}, or"
                    " list it in `prepare.missing_values` and set `prepare.missing` to drop."
                )
                faults.append(Fault(text.first_row, index, problem))
            num_cells = sum(text.num_cells for text in texts.values())
            self._faults.add(faults, num_cells + (column.num_other_texts if texts else 0))
            if len(column.texts) > MAX_CATEGORIES and not texts:
                sentences.append(
                    f"{self._table.path}, column `{column.name}`: text with more than"
                    f" {MAX_CATEGORIES} different values. Choose other `prepare.features`."
                )
        sentences += self._faults.sentences(self.columns, self._table.locate)
        if sentences:
            raise UserError("\n".join(sentences))


def is_misread(text: str) -> bool:
    """Whether a text is more likely a number, a date or a time than a category."""
    text = EXPONENT.sub("", text)
    return any(map(str.isdigit, text)) and not any(map(str.isalpha, text))


def too_large_in(batch: Batch) -> Callable[[int, int], str]:
    """A function that describes a cell of a batch whose number is too large for float32."""

    def describe(row: int, column: int) -> str:
        cell = show(batch.columns[column][row].as_py())
        return (
            f"too large for float32: {cell}. Rescale the column, or set `prepare.dtype` to float64."
        )

    return describe


def missing_in(batch: Batch) -> Callable[[int, int], str]:
    """A function that describes a missing cell of a batch."""

    def describe(row: int, column: int) -> str:
        cell = batch.columns[column][row].as_py()
        kind = "empty cell" if cell in (None, "") else f"missing or not finite: {show(cell)}"
        return f"{kind}. Set `prepare.missing` to drop, or correct the file."

    return describe


def choose_columns(
    where: str, names: list[str], features: list[str] | None, target: str
) -> list[str]:
    """The names of the chosen columns: the features (None: all other columns), then the target.

    Raises:
        UserError: If a chosen column is not in the table or has no name, or if there is no feature.
    """
    if features is None:
        features = [name for name in names if name != target]
        if any(not name or name.startswith("__index_level_") for name in features):
            raise UserError(
                f"{where}: a column has no name, or is named `__index_level_0__`, as pandas writes"
                " its index. Name it, or list the columns to learn from in `prepare.features`."
            )
    wanted = [("target", target), *(("features", name) for name in features)]
    known = {*names}
    unknown = [(key, name) for key, name in wanted if name not in known]
    if unknown:
        faults = [
            f"{where}: no column `{name}`. Correct `prepare.{key}`; the columns are"
            f" {listed(names)}."
            for key, name in sorted(unknown)
        ]
        raise UserError("\n".join(faults))
    if not features:
        raise UserError(
            f"{where}: the target, `{target}`, is the only column. Add a column to learn from."
        )
    return [*features, target]


def require_names(where: str, columns: Sequence[str], categories: dict[str, list[str]]) -> None:
    """Check that every feature has its own name, in the rows and in metrics/evaluation.json."""
    inputs = [*chain(*(inputs_of(column, categories) for column in columns))]
    if "intercept" in inputs[:-1]:
        raise UserError(
            f"{where}: a column must not be named `intercept`, which is a name in"
            " metrics/evaluation.json. Rename the column."
        )
    repeated = repeated_names(inputs)
    if repeated:
        raise UserError(
            f"{where}: more than one column or category has the name {listed(repeated)}. Rename the"
            " column."
        )


def cell_parser(markers: Sequence[str | float], decimal: str) -> Callable[[pa.Array], Cells]:
    """A function that reads a column of numbers or text; a cell with a marker is missing."""
    text_markers = [marker.strip(" \t") for marker in markers if isinstance(marker, str)]
    nulls = pa.array(["", *text_markers], pa.string())
    number_markers = np.array([marker for marker in markers if not isinstance(marker, str)], float)

    def to_numpy(numbers: pa.DoubleArray, kind: pa.DataType) -> NDArray[np.float64]:
        values = np.asarray(pc.fill_null(numbers, np.nan), np.float64)
        if len(number_markers) and not pa.types.is_boolean(kind):
            # Round the markers as the column's type rounds them.
            rounded = number_markers.astype(np.float32 if pa.types.is_float32(kind) else np.float64)
            values = np.where(np.isin(values, rounded), np.nan, values)
        return values

    def parse(column: pa.Array) -> Cells:
        if not _is_text(column.type):
            if pa.types.is_decimal(column.type):
                column = pc.cast(column, pa.string())  # a cast from decimal rounds twice
            return Cells(to_numpy(pc.cast(column, pa.float64(), safe=False), column.type), None)
        cells = pc.utf8_trim(pc.cast(column, pa.string()), characters=" \t")
        cells = pc.if_else(pc.is_in(cells, value_set=nulls), None, cells)
        text = cells
        if decimal == ",":
            text = pc.replace_substring(pc.replace_substring(text, ".", "?"), ",", ".")
        try:
            return Cells(to_numpy(pc.cast(text, pa.float64()), text.type), None)
        except pa.ArrowInvalid:
            not_numbers = pa.array([cell for cell in text.unique() if not _is_castable(cell)])
            is_text = pc.is_in(text, value_set=not_numbers)
            numbers = pc.cast(pc.if_else(is_text, None, text), pa.float64())
            texts = pc.if_else(is_text, cells, None).dictionary_encode()
            return Cells(to_numpy(numbers, text.type), texts)

    return parse


def require_kinds(where: str, names: Sequence[str], columns: Sequence[pa.Array]) -> None:
    """Check that all columns hold numbers or text."""
    faults = [
        f"{where}, column `{name}`: holds {column.type}, neither numbers nor text. Choose other"
        " columns, or correct the file."
        for name, column in zip(names, columns, strict=True)
        if not (_is_numeric(column.type) or _is_text(column.type))
    ]
    if faults:
        raise UserError("\n".join(sorted(faults)))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_numeric(kind: pa.DataType) -> bool:
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)
    return is_number or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)


def _is_castable(cell: pa.StringScalar) -> bool:
    try:
        cell.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True

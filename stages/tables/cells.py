"""Turn the cells of a column into numbers and texts, and describe the faulty ones."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.base.errors import UserError, cut
from stages.tables.table import Batch

BOOLEANS = {"false": 0.0, "true": 1.0}
SPACES = " \t"  # around a cell; they do not count
# The texts that Arrow casts to a number:
NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:nan(\(\w*\))?|inf|infinity))$"


class Cells(NamedTuple):
    """The cells of a column of a batch."""

    numbers: NDArray[np.float64]  # NaN where a cell is missing or text
    texts: Sequence[str] = ()  # the different texts
    codes: NDArray[np.int32] = np.empty(0, np.int32)  # index in texts, or -1; empty without texts

    def with_texts(self, number_of: Callable[[str], float]) -> NDArray[np.float64]:
        """The numbers, and for each text the number that ``number_of`` returns."""
        if not self.texts:
            return self.numbers
        numbers = np.array([number_of(text) for text in self.texts])
        return np.where(self.codes >= 0, numbers[self.codes], self.numbers)


def cell_parser(markers: Sequence[str | float], decimal: str) -> Callable[[pa.Array, str], Cells]:
    """A function that reads a column of numbers or text; a number becomes the nearest double.

    Its arguments are the column and the place that an error names. A cell with a marker is missing;
    ``decimal`` is the decimal sign of numbers that are stored as text.
    """
    text_markers = [marker.strip(SPACES) for marker in markers if isinstance(marker, str)]
    number_markers = np.array([marker for marker in markers if not isinstance(marker, str)])

    def to_numpy(column: pa.Array) -> NDArray[np.float64]:
        kind = column.type
        if pa.types.is_decimal(kind):
            column = pc.cast(column, pa.string())  # a cast from decimal rounds twice
        column = pc.cast(column, pa.float64(), safe=False)
        if column.null_count:
            numbers = np.asarray(pc.fill_null(column, np.nan))
        else:
            numbers = np.from_dlpack(column)  # np.asarray would import pandas
        if len(number_markers) and not pa.types.is_boolean(kind):
            # Round the markers as the column's type rounds them.
            rounded = number_markers.astype(np.float32 if pa.types.is_float32(kind) else np.float64)
            numbers = np.where(np.isin(numbers, rounded), np.nan, numbers)
        return numbers

    def parse_text(column: pa.Array) -> Cells:
        cells = pc.utf8_trim(pc.cast(column, pa.string()), characters=SPACES)
        nulls = pa.array(["", *text_markers], pa.string())
        cells = signed = pc.if_else(pc.is_in(cells, value_set=nulls), None, cells)
        if decimal == ",":
            signed = pc.replace_substring(pc.replace_substring(cells, ".", "?"), ",", ".")
        try:
            return Cells(to_numpy(signed))
        except pa.ArrowInvalid:
            is_number = pc.match_substring_regex(signed, NUMBER)
            texts = pc.if_else(is_number, None, cells).dictionary_encode()
            codes = np.asarray(pc.fill_null(texts.indices, -1))
            numbers = to_numpy(pc.if_else(is_number, signed, None))
            return Cells(numbers, texts.dictionary.to_pylist(), codes)

    def parse(column: pa.Array, where: str) -> Cells:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        try:
            return parse_text(column) if is_text else Cells(to_numpy(column))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(
                f"{where}: cells of the type {column.type} are neither numbers nor text. Choose"
                " other columns, or correct the file."
            ) from None

    return parse


@dataclass
class Found:
    """Cells of one kind in a column: how many, and the first one with its place."""

    num_cells: int = 0
    cell: Any = None
    place: str = ""

    def add(self, is_found: NDArray[np.bool_], cells: pa.Array, batch: Batch) -> None:
        """Add the cells of a batch's column where ``is_found`` is true."""
        num_found = int(is_found.sum())
        if num_found and not self.num_cells:
            row = int(is_found.argmax())
            self.cell = cells[row].as_py()
            self.place = f"{batch.file}, row {batch.first_row + row}"
        self.num_cells += num_found

    def sentence(self, column: str, problem: str, cure: str, empty_cure: str = "") -> str | None:
        """Say where the first cell is, what it holds, and how many more there are, if any."""
        if not self.num_cells:
            return None
        others = self.num_cells - 1
        more = f" (and {others} more cell{'s' * (others > 1)} of this column)" if others else ""
        fault = f"{problem}: {json.dumps(cut(str(self.cell)), ensure_ascii=False)}"
        if self.cell is None or not str(self.cell).strip(SPACES):
            fault, cure = "empty cell", empty_cure or cure
        return f"{self.place}, column `{column}`: {fault}{more}. {cure}"


def require_no_faults(sentences: Iterable[str | None]) -> None:
    """Raise a UserError of all sentences, if there are any."""
    faults = [*filter(None, sentences)]
    if faults:
        raise UserError("\n".join(faults))

"""Turn the cells of a column into numbers and texts, and describe the faulty ones."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
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
TEXTS = pa.string(), pa.large_string(), pa.string_view()
# The texts that Arrow casts to a number:
NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:nan(\(\w*\))?|inf|infinity))$"
# Each sign between thousands, and the characters that are written for it (no-break spaces, ’):
THOUSANDS = {",": ",", ".": "[.]", " ": "[ \u00a0\u202f]", "'": "['\u2019]"}


class Cells(NamedTuple):
    """The cells of a column of a batch."""

    numbers: NDArray[np.float64]  # NaN where a cell is missing or text
    texts: Sequence[str] = ()  # the different texts
    codes: NDArray[np.int32] = np.empty(0, np.int32)  # index in texts, or -1; empty without texts
    problem: str = ""  # why the column cannot be read

    def with_texts(self, number_of: Callable[[str], float]) -> NDArray[np.float64]:
        """The numbers, and for each text the number that ``number_of`` returns."""
        if not self.texts:
            return self.numbers
        numbers = np.array([number_of(text) for text in self.texts])
        return np.where(self.codes >= 0, numbers[self.codes], self.numbers)


class CellParser:
    """Reads columns of numbers or text; a number becomes the nearest double.

    A cell with a marker is missing; ``decimal`` and ``thousands`` are the signs of numbers that are
    stored as text. In a table that ``has_types``, text is never a number.
    """

    def __init__(
        self, markers: Sequence[str | float], decimal: str, thousands: str | None, has_types: bool
    ) -> None:
        self._texts = [marker.strip(SPACES) for marker in markers if isinstance(marker, str)]
        self._numbers = np.array([marker for marker in markers if not isinstance(marker, str)])
        self._is_comma, self._has_types = decimal == ",", has_types
        self._sign = THOUSANDS[thousands] if thousands else ""
        self._grouped = rf"^[+-]?[1-9]\d{{0,2}}({self._sign}\d{{3}})+([{decimal}]\d*)?$"

    def __call__(self, column: pa.Array, is_category: bool) -> Cells:
        """Read a column of a batch; all its cells are categories if ``is_category`` is true."""
        is_text = column.type in TEXTS or pa.types.is_dictionary(column.type)
        try:
            if is_text or is_category:
                return self._parse_text(column, is_category or self._has_types)
            return Cells(self._to_numpy(column))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            problem = f"cells of the type {column.type} are neither numbers nor text"
            return Cells(np.full(len(column), np.nan), problem=problem)

    def _parse_text(self, column: pa.Array, is_category: bool) -> Cells:
        cells = pc.utf8_trim(pc.cast(column, pa.string()), characters=SPACES)
        nulls = pa.array(["", *self._texts], pa.string())
        cells = signed = pc.if_else(pc.is_in(cells, value_set=nulls), None, cells)
        if self._sign:
            is_grouped = pc.match_substring_regex(cells, self._grouped)
            joined = pc.replace_substring_regex(cells, self._sign, "")
            signed = pc.if_else(is_grouped, joined, cells)
        if self._is_comma:
            signed = pc.replace_substring(pc.replace_substring(signed, ".", "?"), ",", ".")
        if not is_category:
            with suppress(pa.ArrowInvalid):
                return Cells(self._to_numpy(signed))
        is_number = pc.match_substring_regex(signed, NUMBER)
        numbers = self._to_numpy(pc.if_else(is_number, signed, None))
        if is_category:  # a number is a category, too, unless it marks a missing cell
            is_number = pc.and_(is_number, pa.array(np.isnan(numbers)))
            numbers = np.full_like(numbers, np.nan)
        texts = pc.if_else(is_number, None, cells).dictionary_encode()
        codes: NDArray[Any] = np.from_dlpack(pc.fill_null(texts.indices, -1))
        return Cells(numbers, texts.dictionary.to_pylist(), codes)

    def _to_numpy(self, column: pa.Array) -> NDArray[np.float64]:
        kind = column.type
        if pa.types.is_decimal(kind):
            column = pc.cast(column, pa.string())  # a cast from decimal rounds twice
        column = pc.cast(column, pa.float64(), safe=False)
        if column.null_count:
            column = pc.fill_null(column, np.nan)
        numbers: NDArray[Any] = np.from_dlpack(column)  # np.asarray would import pandas
        if len(self._numbers) and not pa.types.is_boolean(kind):
            # Round the markers as the column's type rounds them.
            is_float = pa.types.is_floating(kind)
            rounded = self._numbers.astype(kind.to_pandas_dtype() if is_float else np.float64)
            numbers = np.where(np.isin(numbers, rounded), np.nan, numbers)
        return numbers


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
    if faults := [*filter(None, sentences)]:
        raise UserError("\n".join(faults))

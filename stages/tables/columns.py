"""The chosen columns of a table as numbers, and what they hold: numbers, booleans or categories."""

import json
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base.errors import UserError
from stages.base.params import PrepareParams
from stages.base.progress import Progress
from stages.base.threads import in_order
from stages.rows.categories import MAX_CATEGORIES
from stages.tables.cells import BOOLEANS, CellParser, Cells, Found, require_no_faults
from stages.tables.cures import (
    DATE,
    SET_MISSING,
    cure_of_signs,
    has_digit,
    leave_out,
    looks_like_number,
)
from stages.tables.line import Line
from stages.tables.table import Batch, Table, listed, repeated_names, require_columns

INDEX = re.compile(r"(Unnamed: \d+|__index_level_\d+__)?")  # as pandas names its index
MAX_WORDS = 5  # in a cure
MIN_STEPS = 1000  # in the range of a column; with fewer, float32 cannot tell its rows apart


class TableColumn:
    """What a chosen column holds, found while the table is read.

    A column of text holds categories or booleans. A column of numbers and text is faulty.
    """

    def __init__(self, name: str, params: PrepareParams, has_types: bool) -> None:
        self.name, self._params = name, params
        self._codes: dict[str, int] = {}  # of texts, as they appear; at most 1 + MAX_CATEGORIES
        self._num_numbers = 0
        self._lowest, self._highest, self._rounding = math.inf, -math.inf, 0.0
        self._text, self._too_large, self.missing = Found(), Found(), Found()
        self._is_declared, self._problem = has_types or name in params.categories, ""

    def add(self, cells: Cells, original: pa.Array, batch: Batch) -> NDArray[np.floating]:
        """Take the cells of the next batch, and return them as numbers of ``prepare.dtype``.

        A missing cell is NaN or infinite. A text is a code, which ``recode`` replaces.
        """
        self._num_numbers += int(np.count_nonzero(~np.isnan(cells.numbers)))
        self._problem = self._problem or cells.problem
        if cells.texts:
            self._text.add(cells.codes >= 0, original, batch)
        numbers = cells.with_texts(self._code)
        with np.errstate(over="ignore"):
            values = numbers.astype(self._params.dtype)
        is_finite = np.isfinite(values)
        if not is_finite.all():
            self._too_large.add(np.isinf(values) & np.isfinite(numbers), original, batch)
            self.missing.add(~np.isfinite(numbers), original, batch)
        if self._params.dtype == "float32" and is_finite.any():
            known, rounded = numbers[is_finite], values[is_finite]
            self._lowest = min(self._lowest, float(known.min()))
            self._highest = max(self._highest, float(known.max()))
            self._rounding = max(self._rounding, float(np.abs(known - rounded).max()))
        return values

    def _code(self, text: str) -> int:
        if len(self._codes) <= MAX_CATEGORIES:
            self._codes.setdefault(text, len(self._codes))
        return self._codes.get(text, 0)

    def categories(self) -> list[str]:
        """The sorted categories; none if the column holds numbers or booleans.

        The empty text is the category of cells that are filled.
        """
        if self._is_boolean():
            return []
        is_filled = self._params.missing == "fill" and self.missing.num_cells
        return sorted([*self._codes, *([""] if is_filled else [])])

    def _is_boolean(self) -> bool:
        return {text.lower() for text in self._codes} <= {*BOOLEANS}

    def recode(self, cells: NDArray[np.floating]) -> None:
        """Replace the code of each text by the index of its category, or by 0 or 1, in place."""
        indices = {text: index for index, text in enumerate(self.categories())}
        if self._codes:
            numbers = [indices.get(text, BOOLEANS.get(text.lower())) for text in self._codes]
            cells[~np.isfinite(cells)] = len(numbers)
            cells[:] = np.array([*numbers, indices.get("", math.nan)], float)[cells.astype(int)]

    def fault(self, table: Table | Line) -> str | None:
        """A sentence about the column's faulty cells, if there are any, and one about missing ones.

        The table is read once more if other signs may make numbers of the cells.
        """
        where, params = f"{table.path}, column `{self.name}`", self._params
        correct = f"Correct the column, or {leave_out(self.name, params)}."
        is_text_target = self.name == params.target and not self._is_boolean()
        num_missing = self.missing.num_cells if params.missing == "error" else 0
        is_mixed = self._num_numbers > 0
        if not self._is_declared:
            is_mixed |= any(map(looks_like_number, self._codes))
        if self._problem:
            return f"{where}: {self._problem}. {correct}"
        if self._codes and (is_mixed or is_text_target):
            fault = self._text.sentence(self.name, "not a number", self._cure_of_texts(table))
        elif len(self._codes) > MAX_CATEGORIES:
            fault = f"{where}: text with more than {MAX_CATEGORIES} different values. {correct}"
        elif self._is_coarse():
            steps = f"the steps between {self._lowest!r} and {self._highest!r}"
            fault = f"{where}: float32 cannot resolve {steps}. Set `prepare.dtype` to float64."
        else:
            cure = "Rescale the column, or set `prepare.dtype` to float64."
            fault = self._too_large.sentence(self.name, "too large for float32", cure)
        if fault and num_missing:
            return f"{fault} Missing cells: {num_missing}; {SET_MISSING}."
        if fault or not num_missing:
            return fault
        cure = "Set `prepare.missing` to drop or fill, or correct the file."
        return self.missing.sentence(self.name, "missing or not finite", cure)

    def _cure_of_texts(self, table: Table | Line) -> str:
        """What to do about texts in a column that should hold numbers."""
        params, without = self._params, leave_out(self.name, self._params)
        if table.has_types:
            return f"Its type is text: store numbers, or {without}."
        words = [text for text in self._codes if not has_digit(text)]
        others = [text for text in self._codes if has_digit(text)]
        if others and all(map(DATE.fullmatch, others)):
            return f"Dates and times are not understood: {without}."
        is_number = bool(others) and all(map(looks_like_number, others))
        signs = cure_of_signs(table, self.name, params) if is_number else ""
        is_rare = self._text.num_cells < self._num_numbers and not self._is_boolean()
        if 0 < len(words) <= MAX_WORDS and (signs or (is_rare and not others)):
            listing = ", ".join(json.dumps(word, ensure_ascii=False) for word in words)
            listing = "it" if len(words) == 1 and not signs else listing
            also = f", and {SET_MISSING}" if params.missing == "error" else ", or correct the file"
            return f"{signs} List {listing} in `prepare.missing_values`{also}.".lstrip()
        declare = " list it in `prepare.categories` if its cells are categories,"
        declare = "" if self.name == params.target else declare
        return signs or f"Correct the column,{declare} or {without}."

    def _is_coarse(self) -> bool:
        """Whether float32 leaves too few steps of a column that float64 resolves."""
        size = self._highest - self._lowest
        smallest = np.spacing(max(-self._lowest, self._highest))
        return not self._codes and MIN_STEPS * smallest < size < MIN_STEPS * self._rounding


def read_rows(
    table: Table | Line, columns: Sequence[TableColumn], params: PrepareParams
) -> Iterator[NDArray[np.floating]]:
    """Yield all rows, shape ``(rows, columns)``, as `TableColumn.add` returns them.

    Raises:
        UserError: At the end, with a sentence for each column that has faulty cells.
    """
    parse = CellParser(params.missing_values, params.decimal, params.thousands, table.has_types)
    is_category = [column.name in params.categories for column in columns]

    def parsed(batch: Batch) -> tuple[Batch, list[Cells]]:
        return batch, [*map(parse, batch.columns, is_category)]

    num_rows = 0
    with Progress("prepare: reading", 1) as progress:
        for batch, cells in in_order(parsed, table.batches([column.name for column in columns])):
            items = zip(columns, cells, batch.columns, strict=True)
            yield np.column_stack([column.add(new, old, batch) for column, new, old in items])
            num_rows += len(cells[0].numbers)
            progress.update(num_rows, num_rows / (batch.fraction_read or 1))
    require_no_faults(column.fault(table) for column in columns)


def choose_columns(table: Table | Line, params: PrepareParams) -> list[TableColumn]:
    """Return the chosen columns: the features (null: all other columns), then the target.

    Raises:
        UserError: If a column of params.yaml is not in the table, if one may be the index of
            pandas, or if there is no feature.
    """
    where, features = str(table.path), params.features
    needed = [*(features or []), params.target, *params.exclude, *params.categories]
    require_columns(where, table.names, needed, "Correct the names in params.yaml")
    if features is None:
        left_out = {params.target, *params.exclude}
        features = [name for name in table.names if name not in left_out]
        require_no_faults(
            f"{where}: column {table.names.index(name) + 1}, `{name}`, is an index that pandas has"
            f" written. List {json.dumps(name)} in `prepare.exclude`, or name the columns to learn"
            " from in `prepare.features`."
            for name in features
            if INDEX.fullmatch(name) or name in table.index
        )
    if not features:
        problem = f"no column is left beside the target, `{params.target}`"
        raise UserError(f"{where}: {problem}. Add a column to learn from.")
    return [TableColumn(name, params, table.has_types) for name in [*features, params.target]]


def require_names(where: str, inputs: Sequence[str]) -> None:
    """Check that every feature has its own name, in the rows and in metrics/evaluation.json."""
    if repeated := repeated_names(["intercept", *inputs]):
        raise UserError(
            f"{where}: more than one column or category has the name {listed(repeated)}"
            " (metrics/evaluation.json has an `intercept`, too). Rename the column."
        )

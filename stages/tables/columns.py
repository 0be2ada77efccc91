"""The chosen columns of a table as numbers, and what they hold: numbers, booleans or categories."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base.errors import UserError
from stages.base.params import PrepareParams
from stages.base.progress import Progress
from stages.base.threads import in_order
from stages.rows.categories import MAX_CATEGORIES, Categories, inputs_of
from stages.tables.cells import BOOLEANS, CellParser, Cells, Found, require_no_faults
from stages.tables.cures import SET_MISSING, cure_of_texts, leave_out, looks_like_number
from stages.tables.line import Line
from stages.tables.table import Batch, Table, listed, repeated_names, require_columns

INDEX = re.compile(r"(Unnamed: \d+|__index_level_\d+__)?")  # as pandas names its index
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
        """A sentence about the column's faulty cells, if there are any."""
        where, params = f"{table.path}, column `{self.name}`", self._params
        num_missing = self.missing.num_cells if params.missing == "error" else 0
        fault = self._fault(where, table)
        if fault and num_missing and not self._problem:
            return f"{fault} Missing cells: {num_missing}; {SET_MISSING}."
        if fault or not num_missing:
            return fault
        cure = "Set `prepare.missing` to drop or fill, or correct the file."
        return self.missing.sentence(self.name, "missing or not finite", cure)

    def _fault(self, where: str, table: Table | Line) -> str | None:
        params = self._params
        if self._problem:
            return (
                f"{where}: {self._problem}. Correct the column, or {leave_out(self.name, params)}."
            )
        is_mixed = self._num_numbers > 0
        if not self._is_declared:
            is_mixed |= any(map(looks_like_number, self._codes))
        is_wrong_target = self.name == params.target and not self._is_boolean()
        if self._codes and (is_mixed or is_wrong_target):
            is_rare = self._text.num_cells < self._num_numbers and not self._is_boolean()
            cure = cure_of_texts(table, self.name, [*self._codes], is_rare, params)
            return self._text.sentence(self.name, "not a number", cure)
        if len(self._codes) > MAX_CATEGORIES:
            problem = f"text with more than {MAX_CATEGORIES} different values"
            return f"{where}: {problem}. Correct the column, or {leave_out(self.name, params)}."
        lowest, highest = self._lowest, self._highest
        is_coarse = self._rounding * MIN_STEPS > highest - lowest and not self._codes
        if is_coarse and highest - lowest > MIN_STEPS * np.spacing(max(-lowest, highest)):
            numbers = f"the steps between {lowest!r} and {highest!r}"
            return f"{where}: float32 cannot resolve {numbers}. Set `prepare.dtype` to float64."
        scale_cure = "Rescale the column, or set `prepare.dtype` to float64."
        return self._too_large.sentence(self.name, "too large for float32", scale_cure)


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
            f"{where}: column {table.names.index(name) + 1}, `{name}`, has no name of its own, as"
            f" the index that pandas writes. List {json.dumps(name)} in `prepare.exclude`, or name"
            " the columns to learn from in `prepare.features`."
            for name in features
            if INDEX.fullmatch(name)
        )
    if not features:
        problem = f"no column is left beside the target, `{params.target}`"
        raise UserError(f"{where}: {problem}. Add a column to learn from.")
    return [TableColumn(name, params, table.has_types) for name in [*features, params.target]]


def require_names(where: str, columns: Sequence[str], categories: Categories) -> None:
    """Check that every feature has its own name, in the rows and in metrics/evaluation.json."""
    inputs = [*chain(*(inputs_of(column, categories) for column in columns))]
    repeated = repeated_names(["intercept", *inputs])
    if repeated:
        raise UserError(
            f"{where}: more than one column or category has the name {listed(repeated)}"
            " (metrics/evaluation.json has an `intercept`, too). Rename the column."
        )

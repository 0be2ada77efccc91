"""The chosen columns of a table as numbers, and what they hold: numbers, booleans or categories."""

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
from stages.tables.cells import BOOLEANS, Cells, Found, cell_parser, require_no_faults
from stages.tables.line import Line
from stages.tables.table import Batch, Table, listed, repeated_names, require_columns

EXPONENT = re.compile(r"(?<=\d)[eE][+-]?\d+$")


class TableColumn:
    """What a chosen column holds, found while the table is read.

    A column of text holds categories or booleans. A column of numbers and text is faulty.
    """

    def __init__(self, name: str, params: PrepareParams) -> None:
        self.name, self._params = name, params
        self._codes: dict[str, int] = {}  # of texts, as they appear; at most 1 + MAX_CATEGORIES
        self._num_numbers = 0
        self._text, self._too_large, self.missing = Found(), Found(), Found()

    def add(self, cells: Cells, original: pa.Array, batch: Batch) -> NDArray[np.floating]:
        """Take the cells of the next batch, and return them as numbers of ``prepare.dtype``.

        A missing cell is NaN or infinite. A text is a code, which ``recode`` replaces.
        """
        self._num_numbers += int(np.count_nonzero(~np.isnan(cells.numbers)))
        if cells.texts:
            self._text.add(cells.codes >= 0, original, batch)
        numbers = cells.with_texts(self._code)
        with np.errstate(over="ignore"):
            values = numbers.astype(self._params.dtype)
        if not np.isfinite(values).all():
            self._too_large.add(np.isinf(values) & np.isfinite(numbers), original, batch)
            self.missing.add(~np.isfinite(numbers), original, batch)
        return values

    def _code(self, text: str) -> int:
        if len(self._codes) <= MAX_CATEGORIES:
            self._codes.setdefault(text, len(self._codes))
        return self._codes.get(text, 0)

    def categories(self) -> list[str]:
        """The sorted categories; none if the column holds numbers or booleans."""
        return [] if self._is_boolean() else sorted(self._codes)

    def _is_boolean(self) -> bool:
        return {text.lower() for text in self._codes} <= {*BOOLEANS}

    def recode(self, cells: NDArray[np.floating]) -> None:
        """Replace the code of each text by the index of its category, or by 0 or 1, in place."""
        indices = {text: index for index, text in enumerate(self.categories())}
        if self._codes:
            numbers = [indices.get(text, BOOLEANS.get(text.lower())) for text in self._codes]
            cells[:] = np.array(numbers, float)[cells.astype(int)]

    def fault(self, where: str) -> str | None:
        """A sentence about the column's faulty cells, if there are any."""
        is_mixed = self._num_numbers or any(map(looks_like_number, self._codes))
        is_wrong_target = self.name == self._params.target and not self._is_boolean()
        if self._codes and (is_mixed or is_wrong_target):
            is_rare = self._text.num_cells < self._num_numbers and not self._is_boolean()
            cure = (
                f'Correct the file (the decimal sign is "{self._params.decimal}", see'
                " `prepare.decimal`; a category needs a letter), or choose other columns."
            )
            if is_rare and not any(map(str.isdigit, str(self._text.cell))):
                cure = "List it in `prepare.missing_values`, or correct the file."
            return self._text.sentence(self.name, "not a number", cure)
        if len(self._codes) > MAX_CATEGORIES:
            problem = f"text with more than {MAX_CATEGORIES} different values"
            return f"{where}: {problem}. Choose other `prepare.features`."
        scale_cure = "Rescale the column, or set `prepare.dtype` to float64."
        fault = self._too_large.sentence(self.name, "too large for float32", scale_cure)
        if fault or self._params.missing == "drop":
            return fault
        cure = "Set `prepare.missing` to drop, or correct the file."
        return self.missing.sentence(self.name, "missing or not finite", cure)


def looks_like_number(text: str) -> bool:
    """Whether a text is more likely a number, a date or a time than a category."""
    text = EXPONENT.sub("", text)
    return any(map(str.isdigit, text)) and not any(map(str.isalpha, text))


def read_rows(
    table: Table | Line, columns: Sequence[TableColumn], params: PrepareParams
) -> Iterator[NDArray[np.floating]]:
    """Yield all rows, shape ``(rows, columns)``, as `TableColumn.add` returns them.

    Raises:
        UserError: At the end, with a sentence for each column that has faulty cells.
    """
    parse = cell_parser(params.missing_values, params.decimal)
    places = [f"{table.path}, column `{column.name}`" for column in columns]

    def parsed(batch: Batch) -> tuple[Batch, list[Cells]]:
        return batch, [*map(parse, batch.columns, places)]

    num_rows = 0
    with Progress("prepare: reading", 1) as progress:
        for batch, cells in in_order(parsed, table.batches([column.name for column in columns])):
            items = zip(columns, cells, batch.columns, strict=True)
            yield np.column_stack([column.add(new, old, batch) for column, new, old in items])
            num_rows += len(cells[0].numbers)
            progress.update(num_rows, num_rows / (batch.fraction_read or 1))
    require_no_faults(map(TableColumn.fault, columns, places))


def choose_columns(table: Table | Line, params: PrepareParams) -> list[TableColumn]:
    """Return the chosen columns: the features (null: all other columns), then the target.

    Raises:
        UserError: If a chosen column is not in the table or has no name, or if there is no feature.
    """
    where, features = str(table.path), params.features
    needed = [*(features or []), params.target]
    require_columns(where, table.names, needed, "Correct `prepare.features` or `prepare.target`")
    if features is None:
        features = [name for name in table.names if name != params.target]
        if any(not name or name.startswith("__index_level_") for name in features):
            raise UserError(
                f"{where}: a column has no name, or is named `__index_level_0__`, as pandas writes"
                " its index. Name it, or list the columns to learn from in `prepare.features`."
            )
    if not features:
        problem = f"the target, `{params.target}`, is the only column"
        raise UserError(f"{where}: {problem}. Add a column to learn from.")
    return [TableColumn(name, params) for name in [*features, params.target]]


def require_names(where: str, columns: Sequence[str], categories: Categories) -> None:
    """Check that every feature has its own name, in the rows and in metrics/evaluation.json."""
    inputs = [*chain(*(inputs_of(column, categories) for column in columns))]
    repeated = repeated_names(["intercept", *inputs])
    if repeated:
        raise UserError(
            f"{where}: more than one column or category has the name {listed(repeated)}"
            " (metrics/evaluation.json has an `intercept`, too). Rename the column."
        )

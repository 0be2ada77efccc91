"""The faulty cells of a table: the first ones in words, and how many there are."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SHOWN_FAULTS = 3
MAX_CELL_CHARACTERS = 60


class Fault(NamedTuple):
    """A cell that cannot be used."""

    row: int
    column: int
    what: str


class Faults:
    """All faulty cells of a table that is read from its beginning to its end."""

    def __init__(self) -> None:
        self.num_cells = 0
        self._first: list[Fault] = []

    def add(self, faults: Iterable[Fault], num_cells: int) -> None:
        """Note some cells, of which the first ones, in any order, are given."""
        self.num_cells += num_cells
        self._first = sorted([*self._first, *faults])[:SHOWN_FAULTS]

    def add_where(
        self, is_faulty: NDArray[np.bool_], first_row: int, what: Callable[[int, int], str]
    ) -> None:
        """Note a batch's faulty cells, shape ``(rows, columns)``; ``what`` says what one is."""
        if is_faulty.any():
            cells = np.argwhere(is_faulty)[:SHOWN_FAULTS].tolist()
            faults = (Fault(first_row + row, column, what(row, column)) for row, column in cells)
            self.add(faults, int(is_faulty.sum()))

    def sentences(self, columns: Sequence[str], locate: Callable[[int], str]) -> list[str]:
        """One for each of the first cells, with its place, and one for all others."""
        sentences = [
            f"{locate(row)}, column `{columns[column]}`: {what}"
            for row, column, what in self._first
        ]
        if self.num_cells > len(sentences):
            sentences.append(f"… and {self.num_cells - len(sentences)} more such cells.")
        return sentences


def show(cell: str | float) -> str:
    """A cell for a message: quoted, on one line, and not too long."""
    text = str(cell)
    return json.dumps(text[:MAX_CELL_CHARACTERS], ensure_ascii=False) + "…" * (
        len(text) > MAX_CELL_CHARACTERS
    )

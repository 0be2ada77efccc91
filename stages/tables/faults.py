"""The faulty cells of a table: a sentence for each of the first ones, and their number."""

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
    problem: str  # with its cure


class Faults:
    """Collect the faulty cells of a table while it is read."""

    def __init__(self) -> None:
        self.num_cells = 0
        self._first: list[Fault] = []

    def add(self, faults: Iterable[Fault], num_cells: int) -> None:
        """Add ``num_cells`` faulty cells; ``faults`` holds the first ones, in any order."""
        self.num_cells += num_cells
        self._first = sorted([*self._first, *faults])[:SHOWN_FAULTS]

    def add_where(
        self, is_faulty: NDArray[np.bool_], first_row: int, describe: Callable[[int, int], str]
    ) -> None:
        """Add the faulty cells of a batch.

        Args:
            is_faulty: Which cells are faulty, shape ``(rows, columns)``.
            first_row: The place of the batch's first row in the table.
            describe: Returns the problem of a cell, by its row and column in the batch.
        """
        if is_faulty.any():
            cells = np.argwhere(is_faulty)[:SHOWN_FAULTS].tolist()
            faults = [
                Fault(first_row + row, column, describe(row, column)) for row, column in cells
            ]
            self.add(faults, int(is_faulty.sum()))

    def sentences(self, columns: Sequence[str], locate: Callable[[int], str]) -> list[str]:
        """One sentence for each of the first cells, with its place, and one for all other cells."""
        sentences = [
            f"{locate(row)}, column `{columns[column]}`: {problem}"
            for row, column, problem in self._first
        ]
        if self.num_cells > len(sentences):
            sentences.append(f"… and {self.num_cells - len(sentences)} more such cells.")
        return sentences


def show(cell: str | float) -> str:
    """A cell as a sentence shows it: in quotes, on one line, shortened."""
    text = str(cell)
    return json.dumps(text[:MAX_CELL_CHARACTERS], ensure_ascii=False) + "…" * (
        len(text) > MAX_CELL_CHARACTERS
    )

"""Predict with a released model: ``python -m stages.predict models/release new.csv``.

This needs only the release, and no params.yaml, DVC or training data.
"""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn import functional

from stages.base.errors import UserError
from stages.base.params import is_delimiter
from stages.base.process import run
from stages.base.progress import Progress
from stages.base.threads import in_order
from stages.model.device import set_numerics
from stages.model.model import Model
from stages.release.release import Release, open_release
from stages.rows.categories import columns_of, encode
from stages.rows.split import arrow_column
from stages.tables.cells import BOOLEANS, Cells, cell_parser, require_kinds
from stages.tables.faults import Faults, show
from stages.tables.table import Batch, Cures, Table, listed, require_delimiter
from stages.tables.table_output import Write, table_output

SUFFIX = "_predicted"
GROUP_ROWS = 16  # kernels compute an incomplete last group of rows in another way


class Predicted(NamedTuple):
    """A batch, its predictions, its faulty cells and its cells outside the training range."""

    batch: Batch
    predictions: pa.Array
    num_outside: NDArray[np.int_]  # cells outside the range of the training rows, for each feature
    is_faulty: NDArray[np.bool_]  # (rows, columns)


def main() -> None:
    arguments = parse_arguments()
    set_numerics("portable")
    release = open_release(arguments.release)
    require_separate_output(arguments.output, arguments.table)
    with input_table(arguments.table, arguments.delimiter) as table:
        require_columns(table, release.model)
        names = [*table.names, f"{release.model.target}{SUFFIX}"]
        with table_output(arguments.output, names) as write:
            num_rows, num_outside = predict_table(release, table, arguments.decimal, write)
    if num_outside:
        listing = ", ".join(f"`{name}` in {count}" for name, count in num_outside.items())
        sys.stderr.write(
            "predict: the model extrapolates, because values are outside the ranges of the training"
            f" rows: {listing} of {num_rows} rows.\n"
        )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.predict",
        description="Predict the target for every row of a table with a released model.",
        epilog="The columns of the table may be in any order. The output has all columns of the"
        f" table; the last column holds the predictions and is named as the target, with {SUFFIX}.",
    )
    parser.add_argument("release", type=Path, help="folder of the release, such as models/release")
    parser.add_argument(
        "table",
        help="a .csv, .tsv (both also .gz or .zst) or .parquet file, or a folder of such files;"
        " - reads CSV from the standard input",
    )
    parser.add_argument(
        "--output",
        default="-",
        metavar="FILE",
        help="the .csv, .tsv or .parquet file to write; - (the default) writes CSV to the standard"
        " output. Text cells stay as they are; predictions have a decimal point",
    )
    parser.add_argument(
        "--delimiter",
        default=",",
        metavar="CHARACTER",
        help="between the cells of a CSV table (default: ,)",
    )
    parser.add_argument(
        "--decimal",
        default=".",
        choices=".,",
        metavar="CHARACTER",
        help="the decimal sign of the table's numbers: . or , (default: .)",
    )
    return parser.parse_args()


@contextmanager
def input_table(source: str, delimiter: str) -> Iterator[Table]:
    """Open the table to predict for; the standard input is kept in a temporary file."""
    delimiter = delimiter.replace("\\t", "\t")  # users type a backslash and a t
    if not is_delimiter(delimiter):
        raise UserError(f"--delimiter must be one ASCII character. Got {json.dumps(delimiter)}.")
    cures = Cures("the path", "--delimiter")
    if source != "-":
        yield Table(Path(source), delimiter, cures)
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, "input.csv")
        if sys.stdin is None:
            raise UserError("The standard input is closed. Name a table instead of -.")
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield Table(path, delimiter, cures)
        except UserError as error:
            raise UserError(str(error).replace(str(path), "standard input")) from None


def require_columns(table: Table, model: Model) -> None:
    """Check that the table has the model's columns, and none with the predictions' name."""
    needed = {*columns_of(model.features, model.categories)}
    require_delimiter(table, needed)
    faults = [
        f"{table.path}: no column `{name}`, which the model needs. Correct the names; the"
        f" columns are {listed(table.names)}."
        for name in sorted(needed - {*table.names})
    ]
    if f"{model.target}{SUFFIX}" in table.names:
        faults.append(f"{table.path}: a column is named `{model.target}{SUFFIX}`. Rename it.")
    if faults:
        raise UserError("\n".join(faults))


def require_separate_output(output: str, table: str) -> None:
    """Check that the output is not the table, and not a file in the table's folder."""
    final, source = Path(output).resolve(), Path(table).resolve()
    if "-" not in (output, table) and source in (final, final.parent):
        raise UserError(f"--output must not be the table, or a file in its folder. Got {output}.")


def predict_table(
    release: Release, table: Table, decimal: str, write: Write
) -> tuple[int, dict[str, int]]:
    """Predict batch by batch, in all threads, and write the batches in order.

    The bits of a row's prediction do not depend on the other rows, or on the format of the table.

    Returns:
        The number of rows; and for each feature the number of rows outside its training range, if
        there are any.

    Raises:
        UserError: At the end, naming the first faulty cells.
    """
    model = release.model
    columns = columns_of(model.features, model.categories)
    places = [table.names.index(column) for column in columns]
    readers = [cell_reader(column, release) for column in columns]
    parse = cell_parser([], decimal)
    faults, num_rows, num_outside = Faults(), 0, np.zeros(len(model.features), int)
    lowest = np.array([column.minimum for column in release.manifest.inputs])
    highest = np.array([column.maximum for column in release.manifest.inputs])

    @torch.inference_mode()  # inference mode holds for its thread only
    def predicted(batch: Batch) -> Predicted:
        arrays = [batch.columns[place] for place in places]
        require_kinds(str(table.path), columns, arrays)
        pairs = [read(parse(array)) for read, array in zip(readers, arrays, strict=True)]
        numbers, is_faulty = (np.column_stack(arrays) for arrays in zip(*pairs, strict=True))
        with np.errstate(over="ignore"):
            numbers = numbers.astype(release.manifest.target.type)
        is_faulty |= ~np.isfinite(numbers)
        numbers[is_faulty] = 0
        inputs = torch.from_numpy(encode(numbers, columns, model.categories))
        is_outside = (inputs.numpy() < lowest) | (inputs.numpy() > highest)
        padding = -len(inputs) % GROUP_ROWS
        predictions = model(functional.pad(inputs, (0, 0, 0, padding)))[: len(inputs), 0]
        is_lost = ~predictions.isfinite().numpy()
        is_faulty[is_lost, np.abs(numbers[is_lost]).argmax(axis=1)] = True
        column = arrow_column(predictions.numpy())
        return Predicted(batch, column, is_outside.sum(axis=0), is_faulty)

    with Progress("predict", 1, file=sys.stderr) as progress:
        for batch, predictions, outside, is_faulty in in_order(
            predicted, table.batches(table.names)
        ):
            faults.add_where(is_faulty, num_rows, fault_in(batch, places, columns, release))
            num_rows += len(predictions)
            num_outside += outside
            progress.update(num_rows, num_rows / (batch.fraction_read or 1))
            if not faults.num_cells:
                write([*batch.columns, predictions])
    if faults.num_cells:
        raise UserError("\n".join(faults.sentences(columns, table.locate)))
    counts = zip(model.features, num_outside.tolist(), strict=True)
    return num_rows, {name: count for name, count in counts if count}


def cell_reader(
    column: str, release: Release
) -> Callable[[Cells], tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """A function that turns a column's cells into numbers and says which cells are faulty.

    A category becomes its index. True and false are 1 and 0 if training had no other numbers.
    """
    model = release.model
    categories = model.categories.get(column)
    ranges = {item.name: (item.minimum, item.maximum) for item in release.manifest.inputs}
    if categories is not None:
        met = release.manifest.met_categories(column)
        known = {text: float(index) for index, text in enumerate(categories) if text in met}
    else:
        known = BOOLEANS if {*ranges[column]} <= {0, 1} else {}

    def read(cells: Cells) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        numbers = cells.numbers
        if categories is not None:
            numbers = np.full_like(numbers, np.nan)
        if cells.texts is not None:
            texts = cells.texts.dictionary.to_pylist()
            if categories is None:
                texts = [text.lower() for text in texts]
            codes = np.array([known.get(text, np.nan) for text in texts])
            is_text, indices = cells.where_text()
            numbers = np.where(is_text, codes[indices], numbers)
        return numbers, ~np.isfinite(numbers)

    return read


def is_finite_number(cell: Any) -> bool:
    """Whether a cell is a finite number, or the text of one."""
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def fault_in(
    batch: Batch, places: list[int], columns: list[str], release: Release
) -> Callable[[int, int], str]:
    """A function that describes a faulty cell of a batch."""

    def describe(row: int, column: int) -> str:
        cell: Any = batch.columns[places[column]][row].as_py()
        name = columns[column]
        if cell is None or not str(cell).strip(" \t"):
            return "empty cell. Fill it in, or leave the row out."
        if name in release.model.categories:
            return (
                f"not in the training rows: {show(cell)}. Leave the row out, or train with such"
                f" rows; the categories are {listed(release.manifest.met_categories(name))}."
            )
        if is_finite_number(cell):
            return (
                f"too far from the training rows: {show(cell)}. Correct the cell, or leave the row"
                " out."
            )
        cure = "--decimal" if any(map(str.isdigit, str(cell))) else "leave the row out"
        return f"not a finite number: {show(cell)}. Correct the file, or {cure}."

    return describe


if __name__ == "__main__":
    run(main)

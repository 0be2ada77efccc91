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
from stages.release.release import Release, open_release
from stages.rows.categories import columns_of, encode
from stages.rows.split import arrow_column
from stages.tables.cells import BOOLEANS, Found, cell_parser, require_no_faults
from stages.tables.table import Batch, Table, listed, require_columns
from stages.tables.table_output import Write, table_output

SUFFIX = "_predicted"
GROUP_ROWS = 16  # kernels compute an incomplete last group of rows in another way


def main() -> None:
    arguments = parse_arguments()
    set_numerics("portable")
    release = open_release(arguments.release)
    with input_table(arguments.table, arguments.delimiter) as table:
        columns = columns_of(release.model.features, release.model.categories)
        require_columns(str(table.path), table.names, columns, "Correct the names")
        output = f"{release.model.target}{SUFFIX}"
        if output in table.names:
            raise UserError(f"{table.path}: a column is named `{output}`. Rename it.")
        with table_output(arguments.output, [*table.names, output]) as write:
            predict_table(release, table, columns, arguments.decimal, write)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.predict",
        description="Predict the target for every row of a table with a released model.",
        epilog="The columns of the table may be in any order. The output has all columns of the"
        f" table; the last column holds the predictions and is named as the target, with {SUFFIX}.",
    )
    add = parser.add_argument
    add("release", type=Path, help="folder of the release, such as models/release")
    formats = ".csv, .tsv (both also .gz or .zst) or .parquet"
    add("table", help=f"a {formats} file, or a folder of such files; - reads the standard input")
    output_help = (
        "the .csv, .tsv or .parquet file to write; - (the default) writes CSV to the standard"
        " output. Text cells stay as they are; predictions have a decimal point"
    )
    add("--output", default="-", metavar="FILE", help=output_help)
    add("--delimiter", default=",", help="the character between cells of CSV (default: ,)")
    add("--decimal", default=".", choices=".,", help="decimal sign of the table (default: .)")
    return parser.parse_args()


@contextmanager
def input_table(source: str, delimiter: str) -> Iterator[Table]:
    """Open the table to predict for; the standard input is kept in a temporary file."""
    delimiter = delimiter.replace("\\t", "\t")  # users type a backslash and a t
    if not is_delimiter(delimiter):
        raise UserError(f"--delimiter must be one ASCII character. Got {json.dumps(delimiter)}.")
    if source != "-":
        yield Table(Path(source), delimiter)
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, "input.csv")
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield Table(path, delimiter)
        except UserError as error:
            raise UserError(str(error).replace(str(path), "standard input")) from None


def predict_table(
    release: Release, table: Table, columns: list[str], decimal: str, write: Write
) -> None:
    """Predict batch by batch, in all threads, and write the batches in order.

    The bits of a row's prediction do not depend on the other rows, or on the format of the table.
    A message counts the rows outside the ranges of the training rows.

    Raises:
        UserError: At the end, with a sentence for each column that has faulty cells.
    """
    model, dtype = release.model, release.manifest.target.type
    places = [table.names.index(column) for column in columns]
    numbers_of = [number_of_text(column, release) for column in columns]
    parse = cell_parser([], decimal)
    lowest = np.array([column.minimum for column in release.manifest.inputs])
    highest = np.array([column.maximum for column in release.manifest.inputs])

    @torch.inference_mode()  # inference mode holds for its thread only
    def predicted(batch: Batch) -> tuple[Batch, pa.Array, NDArray[np.int_], NDArray[np.bool_]]:
        numbers = np.empty((len(batch.columns[0]), len(columns)), dtype)
        for index, (column, place) in enumerate(zip(columns, places, strict=True)):
            cells = parse(batch.columns[place], f"{table.path}, column `{column}`")
            if column in model.categories:  # a number is not a category
                cells = cells._replace(numbers=np.full_like(cells.numbers, np.nan))
            with np.errstate(over="ignore"):
                numbers[:, index] = cells.with_texts(numbers_of[index])
        is_faulty = ~np.isfinite(numbers)
        numbers[is_faulty] = 0
        inputs = torch.from_numpy(encode(numbers, columns, model.categories))
        is_outside = (inputs.numpy() < lowest) | (inputs.numpy() > highest)
        padding = -len(inputs) % GROUP_ROWS
        predictions = model(functional.pad(inputs, (0, 0, 0, padding)))[: len(inputs), 0]
        is_lost = ~predictions.isfinite().numpy()
        is_faulty[is_lost, np.abs(numbers[is_lost]).argmax(axis=1)] = True
        return batch, arrow_column(predictions.numpy()), is_outside.sum(axis=0), is_faulty

    found = {column: Found() for column in columns}
    num_rows, num_outside = 0, np.zeros(len(model.features), int)
    with Progress("predict", 1, file=sys.stderr) as progress:
        batches = table.batches(table.names)
        for batch, predictions, outside, is_faulty in in_order(predicted, batches):
            for faulty, place, cells in zip(found.values(), places, is_faulty.T, strict=True):
                faulty.add(cells, batch.columns[place], batch)
            num_rows += len(predictions)
            num_outside += outside
            progress.update(num_rows, num_rows / (batch.fraction_read or 1))
            if not any(faulty.num_cells for faulty in found.values()):
                write([*batch.columns, predictions])
    require_no_faults([fault_of(found[name], name, release, decimal) for name in columns])
    counts = zip(model.features, num_outside.tolist(), strict=True)
    outside_listing = ", ".join(f"`{name}` in {count}" for name, count in counts if count)
    if outside_listing:
        sys.stderr.write(
            "predict: the model extrapolates, because values are outside the ranges of the training"
            f" rows: {outside_listing} of {num_rows} rows.\n"
        )


def number_of_text(column: str, release: Release) -> Callable[[str], float]:
    """A function that returns the number of a text; NaN if the model cannot use it.

    A category becomes its index. True and false are 1 and 0 if training had no other numbers.
    """
    categories = release.model.categories.get(column)
    if categories is not None:
        met = release.manifest.met_categories(column)
        known = {text: float(index) for index, text in enumerate(categories) if text in met}
        return lambda text: known.get(text, math.nan)
    [item] = [item for item in release.manifest.inputs if item.name == column]
    is_boolean = {item.minimum, item.maximum} <= {0, 1}
    return lambda text: BOOLEANS.get(text.lower(), math.nan) if is_boolean else math.nan


def fault_of(faulty: Found, column: str, release: Release, decimal: str) -> str | None:
    """A sentence about a column's faulty cells, if there are any."""
    problem = "not a finite number, or too far from the training rows"
    cure = f'Correct it (the decimal sign is "{decimal}", see --decimal), or leave the row out.'
    if column in release.model.categories:
        problem = "not in the training rows"
        met = listed(release.manifest.met_categories(column))
        cure = f"Leave the row out, or train with such rows; the categories are {met}."
    return faulty.sentence(column, problem, cure, "Fill it in, or leave the row out.")


if __name__ == "__main__":
    run(main)

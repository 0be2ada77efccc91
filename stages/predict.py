"""Predict with a released model: ``python -m stages.predict models/release new.csv``.

This needs only the release, and no params.yaml, DVC or training data.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
from stages.tables.cells import BOOLEANS, THOUSANDS, CellParser, Found, require_no_faults
from stages.tables.table import Batch, Table, listed, require_columns
from stages.tables.table_output import Write, table_output

GROUP_ROWS = 16  # kernels compute an incomplete last group of rows in another way
MESSAGES = (
    "missing cells are filled as in training",
    "rows have no prediction, because of missing cells",
    "rows have no prediction, because of cells that the model cannot use",
    "the model extrapolates, because values are outside the ranges of the training rows",
)


def main() -> None:
    arguments = parse_arguments()
    set_numerics("portable")
    release = open_release(arguments.release)
    for key in ("delimiter", "decimal", "thousands"):
        if getattr(arguments, key) is None:  # as in training
            setattr(arguments, key, release.manifest.parameters["prepare"][key])
    if arguments.thousands == arguments.decimal:
        raise UserError("--thousands and --decimal must differ. Correct one of them.")
    table = Table(arguments.table, arguments.delimiter)
    columns = columns_of(release.model.features, release.model.categories)
    require_columns(str(table.path), table.names, columns, "Correct the names")
    names = [*table.names, f"{release.model.target}_predicted"]
    if names[-1] in table.names:
        raise UserError(f"{table.path}: a column is named `{names[-1]}`. Rename it.")
    same = table.delimiter if arguments.output == "-" else arguments.delimiter
    signs = arguments.output_delimiter or same, arguments.output_decimal or arguments.decimal
    with table_output(arguments.output, names, *signs) as write:
        predict_table(release, table, columns, arguments, write)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.predict",
        description="Predict the target for every row of a table, with a released model. The"
        " output has all columns of the table, and the predictions in one column more.",
    )
    add = parser.add_argument
    add("release", type=Path, help="folder of the release, such as models/release")
    add("table", type=Path, help="a .csv, .tsv or .parquet file (also .gz, .zst), or a folder")
    add("--output", default="-", metavar="FILE", help="file to write (default: CSV on stdout)")
    add("--delimiter", type=delimiter, help="between cells of CSV (default: as in training)")
    add("--decimal", choices=".,", help="decimal sign of the table (default: as in training)")
    groups_help = "sign between groups of three digits; '' for none (default: as in training)"
    add("--thousands", choices=["", *THOUSANDS], help=groups_help)
    add("--output-delimiter", type=delimiter, help="of the output (default: as the table)")
    add("--output-decimal", choices=".,", help="of the output (default: as the table)")
    add("--skip-faulty", action="store_true", help="a row with a faulty cell gets no prediction")
    return parser.parse_args()


def delimiter(text: str) -> str:
    """The delimiter that a user means."""
    character = text.replace("\\t", "\t")  # users type a backslash and a t
    if not is_delimiter(character):
        raise UserError(f"A delimiter must be one ASCII character. Got {text!r}.")
    return character


def predict_table(
    release: Release, table: Table, columns: list[str], arguments: argparse.Namespace, write: Write
) -> None:
    """Predict batch by batch, in all threads, and write the batches in order.

    The bits of a row's prediction do not depend on the other rows, or on the format of the table.

    Raises:
        UserError: At the end, with a sentence for each column that has faulty cells.
    """
    model, inputs = release.model, release.manifest.inputs
    places = [table.names.index(column) for column in columns]
    read = cells_reader(release, table, columns, arguments)
    lowest, highest = np.array([(column.minimum, column.maximum) for column in inputs]).T

    @torch.inference_mode()  # inference mode holds for its thread only
    def predicted(batch: Batch) -> tuple[Batch, NDArray[Any], NDArray[np.bool_], Any]:
        numbers, is_missing = read([batch.columns[place] for place in places])
        is_faulty = ~np.isfinite(numbers)
        numbers[is_faulty] = 0
        rows = torch.from_numpy(encode(numbers, columns, model.categories))
        is_outside = (rows.numpy() < lowest) | (rows.numpy() > highest)
        whole_groups = functional.pad(rows, (0, 0, 0, -len(rows) % GROUP_ROWS))
        predictions = model(whole_groups)[: len(rows), 0]
        is_lost = ~predictions.isfinite().numpy()
        is_faulty[is_lost, np.abs(numbers[is_lost]).argmax(axis=1)] = True
        is_outside[is_faulty.any(axis=1)] = False
        kinds = is_missing & ~is_faulty, is_missing & is_faulty, ~is_missing & is_faulty, is_outside
        return batch, predictions.numpy(), is_faulty, [cells.sum(axis=0) for cells in kinds]

    found = {column: Found() for column in columns}
    named = [*3 * [columns], model.features]  # the counts of each message are by these names
    num_rows, totals = 0, [np.zeros(len(names), int) for names in named]
    with Progress("predict", 1) as progress:
        batches = in_order(predicted, table.batches(table.names))
        for batch, predictions, is_faulty, counts in batches:
            for faulty, place, cells in zip(found.values(), places, is_faulty.T, strict=True):
                faulty.add(cells, batch.columns[place], batch)
            num_rows += len(predictions)
            totals = [total + count for total, count in zip(totals, counts, strict=True)]
            progress.update(num_rows, num_rows / (batch.fraction_read or 1))
            if arguments.skip_faulty or not any(faulty.num_cells for faulty in found.values()):
                is_skipped = pa.array(is_faulty.any(axis=1))
                write([*batch.columns, pc.if_else(is_skipped, None, arrow_column(predictions))])
    if not arguments.skip_faulty:
        require_no_faults([fault_of(found[name], name, release) for name in columns])
    for message, names, total in zip(MESSAGES, named, totals, strict=True):
        pairs = zip(names, total.tolist(), strict=True)
        listing = ", ".join(f"`{name}` in {count}" for name, count in pairs if count)
        if listing:
            sys.stderr.write(f"predict: {message}: {listing} of {num_rows} rows.\n")


def cells_reader(
    release: Release, table: Table, columns: list[str], arguments: argparse.Namespace
) -> Callable[[list[pa.Array]], tuple[NDArray[Any], NDArray[np.bool_]]]:
    """A function that returns the numbers of a batch's columns, and which cells are missing.

    As in training, missing cells are filled; what has no number is NaN or infinite.
    """
    manifest, categories = release.manifest, release.model.categories
    numbers_of = [number_of_text(column, release) for column in columns]
    missing = {name: texts.index("") for name, texts in categories.items() if "" in texts}
    fill, markers = manifest.fill | missing, manifest.parameters["prepare"]["missing_values"]
    parse = CellParser(markers, arguments.decimal, arguments.thousands, table.has_types)

    def read(arrays: list[pa.Array]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        numbers = np.empty((len(arrays[0]), len(columns)), manifest.target.type)
        is_missing = np.empty(numbers.shape, bool)
        for index, (column, array) in enumerate(zip(columns, arrays, strict=True)):
            cells = parse(array, column in categories)
            if cells.problem:
                raise UserError(f"{table.path}, column `{column}`: {cells.problem}.")
            with np.errstate(over="ignore"):
                numbers[:, index] = cells.with_texts(numbers_of[index])
            is_missing[:, index] = ~np.isfinite(cells.with_texts(lambda _: 0.0))
            numbers[is_missing[:, index], index] = fill.get(column, np.nan)
        return numbers, is_missing

    return read


def number_of_text(column: str, release: Release) -> Callable[[str], float]:
    """A function that returns the number of a text; NaN if the model cannot use it.

    A category becomes its index. True and false are 1 and 0 if training had no other numbers.
    """
    if column in release.model.categories:
        known = {text: index for index, text in enumerate(release.model.categories[column])}
        return lambda text: known.get(text, np.nan)
    ranges = {item.name: {item.minimum, item.maximum} for item in release.manifest.inputs}
    booleans = BOOLEANS if ranges[column] <= {0, 1} else {}
    return lambda text: booleans.get(text.lower(), np.nan)


def fault_of(faulty: Found, column: str, release: Release) -> str | None:
    """A sentence about a column's faulty cells, if there are any."""
    problem = "missing, not a number, or too far from the training rows"
    cure = "Correct it (see --decimal and --thousands), or leave the row out."
    if column in release.model.categories:
        problem = "not in the training rows"
        met = listed(release.model.categories[column])
        cure = f"Leave the row out, or train with such rows; the categories are {met}."
    return faulty.sentence(column, problem, cure, "Fill it in, or leave the row out.")


if __name__ == "__main__":
    run(main)

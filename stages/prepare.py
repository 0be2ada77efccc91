"""Prepare the rows to learn from: a user's table, or a line with noise.

Reads params.yaml and data/raw/; writes data/prepared/.
"""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stages.base.errors import UserError
from stages.base.files import PREPARED, RAW, write_json
from stages.base.outputs import output_folder
from stages.base.params import PrepareParams, load_params
from stages.base.process import run
from stages.base.progress import Progress
from stages.rows.categories import encode, inputs_of
from stages.rows.ordered_sum import column_sums, ordered_mean, ordered_sum
from stages.rows.split import SPLITS, Split, SplitWriter, Statistics, split_labels
from stages.tables.cells import CellFormat, CheckedCells, choose_columns, require_names
from stages.tables.line import Line
from stages.tables.table import Table, listed, require_delimiter

MAX_RANDOM_ROWS = 10**9 - 1  # the limit of numpy's multivariate_hypergeometric


def main() -> None:
    params = load_params().prepare
    table = open_table(params)
    columns = choose_columns(str(table.path), table.names, params.features, params.target)
    cells = CheckedCells(table, columns, cell_format(params))
    with output_folder(PREPARED) as folder, TemporaryFile(dir=folder) as spool:
        num_rows, dropped = spool_rows(cells, params, spool)
        require_names(str(table.path), cells.columns, cells.categories())
        sizes = split_sizes(num_rows, params)
        write_splits(spool, cells, sizes, params, folder)
        training = Split(folder / "train.parquet")
        described = statistics(training, sizes, cells.categories())
        write_json(folder / "statistics.json", described.model_dump())
    split_listing = ", ".join(f"{size} {name}" for name, size in zip(SPLITS, sizes, strict=True))
    unused = sorted({*table.names} - {*cells.columns}, key=table.names.index)
    notes = f"; ignored: {listed(unused)}" if unused else ""
    if described.categories:
        counts = {name: len(categories) for name, categories in described.categories.items()}
        notes += f"; categories: {counted(counts)}"
    print(f"prepare: {num_rows} rows from {params.source}{dropped}: {split_listing}{notes}")


def open_table(params: PrepareParams) -> Table | Line:
    """Open the table, or the line, that `prepare.source` names."""
    if params.source == "line":
        return Line(params.rows, params.m, params.b, params.noise, params.seed)
    table = Table(RAW / params.source.removeprefix(f"{RAW}/"), params.delimiter)
    require_delimiter(table, {params.target})
    return table


def cell_format(params: PrepareParams) -> CellFormat:
    """The parameters that say how to read the cells of a table."""
    return CellFormat(
        decimal=params.decimal,
        missing_values=params.missing_values,
        is_missing_allowed=params.missing == "drop",
        dtype=params.dtype,
    )


def spool_rows(cells: CheckedCells, params: PrepareParams, spool: IO[bytes]) -> tuple[int, str]:
    """Write the rows without missing cells to ``spool``, in ``params.dtype``.

    Returns:
        The number of these rows; and a text that counts the dropped rows and their missing cells.
    """
    num_rows = num_dropped = 0
    num_missing = np.zeros(len(cells.columns), int)
    for batch in cells.batches():
        is_missing = ~np.isfinite(batch)
        kept = batch
        if is_missing.any():
            kept = batch[~is_missing.any(axis=1)]
            num_missing += is_missing.sum(axis=0)
        rows = np.ascontiguousarray(kept, params.dtype)
        spool.write(rows.data)
        num_rows += len(rows)
        num_dropped += len(batch) - len(rows)
    spool.seek(0)
    if not num_dropped:
        return num_rows, ""
    listing = counted(dict(zip(cells.columns, num_missing.tolist(), strict=True)))
    if not num_rows:
        raise UserError(
            f"prepare: each of the {num_dropped} rows has a missing cell ({listing}). Choose other"
            " `prepare.features`, or correct the file."
        )
    return num_rows, f", {num_dropped} with missing cells dropped ({listing})"


def counted(counts: Mapping[str, int]) -> str:
    """The first ten names whose count is not 0, with their counts."""
    items = [f"`{name}` {count}" for name, count in counts.items() if count]
    return ", ".join(items[:10]) + (", …" if items[10:] else "")


def split_sizes(num_rows: int, params: PrepareParams) -> tuple[int, ...]:
    """The numbers of training, validation and test rows, each rounded to the nearest row."""
    num_validation, num_test = round(num_rows * params.validation), round(num_rows * params.test)
    sizes = num_rows - num_validation - num_test, num_validation, num_test
    fractions = 1.0, params.validation, params.test
    empty = [
        name
        for name, size, fraction in zip(SPLITS, sizes, fractions, strict=True)
        if fraction and size < 1
    ]
    if empty:
        raise UserError(
            f"prepare: {num_rows} rows are too few: no row is left for {', '.join(empty)}."
            " Add rows, or change `prepare.validation` and `prepare.test`."
        )
    if params.split == "random" and num_rows > MAX_RANDOM_ROWS:
        raise UserError(
            f"prepare: {num_rows} rows are too many for a random split, which takes at most"
            f" {MAX_RANDOM_ROWS}. Set `prepare.split` to ordered."
        )
    return sizes


def write_splits(
    spool: IO[bytes],
    cells: CheckedCells,
    sizes: tuple[int, ...],
    params: PrepareParams,
    folder: Path,
) -> None:
    """Write the rows in ``spool`` to one Parquet file per split."""
    categories = cells.categories()
    inputs = [*chain(*(inputs_of(column, categories) for column in cells.columns))]
    writers = [SplitWriter(folder / f"{name}.parquet", inputs, params.dtype) for name in SPLITS]
    width, dtype = len(cells.columns), np.dtype(params.dtype)
    with Progress("prepare: splitting", sum(sizes)) as progress:
        for labels in split_labels(sizes, params.split, params.seed):
            content = bytearray(spool.read(len(labels) * width * dtype.itemsize))
            rows = np.frombuffer(content, dtype).reshape(len(labels), width)
            cells.recode(rows)
            rows = encode(rows, cells.columns, categories)
            for label, writer in enumerate(writers):
                writer.write(rows[labels == label])
            progress.add(len(labels))
    for writer in writers:
        writer.close()


def statistics(
    training: Split, sizes: tuple[int, ...], categories: dict[str, list[str]]
) -> Statistics:
    """Describe the training rows, block by block."""
    columns = [*training.features, training.target]
    blocks = range(training.num_blocks)
    progress = Progress("prepare: statistics", 2 * training.num_rows)
    lowest, highest = np.empty((2, len(blocks), len(columns)))

    def cells(block: int) -> NDArray[np.float64]:
        rows = training.read(block)
        progress.add(len(rows))
        return rows.astype(np.float64)

    def squares(block: int) -> NDArray[np.float64]:
        rows = cells(block)
        lowest[block], highest[block] = rows.min(axis=0), rows.max(axis=0)
        return column_sums((rows - mean) ** 2)

    with progress:
        mean = ordered_mean(cells, blocks, training.num_rows)
        variance = ordered_sum(squares, blocks) / training.num_rows
    if not np.isfinite(variance).all():
        column = columns[np.isfinite(variance).argmin()]
        raise UserError(
            f"prepare: the numbers of `{column}` are too large to square. Rescale the column."
        )
    extremes = lowest.min(axis=0), highest.max(axis=0)
    by_column = [  # + 0.0 turns -0.0 into 0.0: the minimum of the two depends on the CPU
        dict(zip(columns, (values + 0.0).tolist(), strict=True))
        for values in (mean, np.sqrt(variance), *extremes)
    ]
    return Statistics(
        columns=columns,
        categories=categories,
        rows=dict(zip(SPLITS, sizes, strict=True)),
        mean=by_column[0],
        standard_deviation=by_column[1],
        minimum=by_column[2],
        maximum=by_column[3],
    )


if __name__ == "__main__":
    run(main)

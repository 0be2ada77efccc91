"""Prepare the rows to learn from: a user's table, or a line with noise.

Reads params.yaml and data/raw/; writes data/prepared/.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stages.base.errors import UserError
from stages.base.files import PREPARE_PARAMS, PREPARED, RAW, write_json
from stages.base.outputs import output_folder
from stages.base.params import PrepareParams, load_params
from stages.base.process import run
from stages.rows.categories import Categories, encode, inputs_of
from stages.rows.ordered_sum import column_sums, ordered_mean, ordered_sum
from stages.rows.split import SPLITS, Split, SplitWriter, Statistics, split_labels
from stages.tables.columns import TableColumn, choose_columns, read_rows, require_names
from stages.tables.line import Line
from stages.tables.table import Table, listed


def main() -> None:
    params = load_params().prepare
    table = open_table(params)
    columns = choose_columns(table, params)
    names = [column.name for column in columns]
    with output_folder(PREPARED) as folder, TemporaryFile(dir=folder) as spool:
        num_rows, num_dropped = spool_rows(read_rows(table, columns, params), spool)
        missing = counted({column.name: column.missing.num_cells for column in columns})
        dropped = f", {num_dropped} with missing cells dropped ({missing})" if num_dropped else ""
        categories = {column.name: found for column in columns if (found := column.categories())}
        require_names(str(table.path), names, categories)
        sizes = split_sizes(num_rows, dropped, params)
        write_splits(spool, columns, categories, sizes, params, folder)
        described = statistics(Split(folder / "train.parquet"), sizes, categories)
        write_json(folder / "statistics.json", described.model_dump())
        write_json(folder / PREPARE_PARAMS.name, params.model_dump())
    split_listing = ", ".join(f"{size} {name}" for name, size in zip(SPLITS, sizes, strict=True))
    unused = [name for name in table.names if name not in {*names}]
    notes = f"; ignored: {listed(unused)}" if unused else ""
    if categories:
        notes += f"; categories: {counted({name: len(categories[name]) for name in categories})}"
    print(f"prepare: {num_rows} rows from {params.source}{dropped}: {split_listing}{notes}")


def open_table(params: PrepareParams) -> Table | Line:
    """Open the table, or the line, that `prepare.source` names."""
    if params.source == "line":
        return Line(params.rows, params.m, params.b, params.noise, params.seed)
    return Table(RAW / params.source.removeprefix(f"{RAW}/"), params.delimiter)


def spool_rows(batches: Iterable[NDArray[np.floating]], spool: IO[bytes]) -> tuple[int, int]:
    """Write the rows without missing cells; return their number, and that of the other rows."""
    num_rows = num_dropped = 0
    for batch in batches:
        is_whole = np.isfinite(batch).all(axis=1)
        rows = batch if is_whole.all() else batch[is_whole]
        spool.write(np.ascontiguousarray(rows).data)
        num_rows += len(rows)
        num_dropped += len(batch) - len(rows)
    spool.seek(0)
    return num_rows, num_dropped


def counted(counts: Mapping[str, int]) -> str:
    """The first ten names whose count is not 0, with their counts."""
    items = [f"`{name}` {count}" for name, count in counts.items() if count]
    return ", ".join(items[:10]) + (", …" if items[10:] else "")


def split_sizes(num_rows: int, dropped: str, params: PrepareParams) -> tuple[int, ...]:
    """The numbers of training, validation and test rows, each rounded to the nearest row."""
    num_validation, num_test = round(num_rows * params.validation), round(num_rows * params.test)
    sizes = num_rows - num_validation - num_test, num_validation, num_test
    fractions = zip(SPLITS, sizes, (1.0, params.validation, params.test), strict=True)
    empty = [name for name, size, fraction in fractions if fraction and size < 1]
    if empty:
        raise UserError(
            f"prepare: {num_rows} rows are too few{dropped}: no row is left for {', '.join(empty)}."
            " Add rows, or change `prepare.features`, `prepare.validation` or `prepare.test`."
        )
    return sizes


def write_splits(
    spool: IO[bytes],
    columns: Sequence[TableColumn],
    categories: Categories,
    sizes: tuple[int, ...],
    params: PrepareParams,
    folder: Path,
) -> None:
    """Write the rows in ``spool`` to one Parquet file per split."""
    names, dtype = [column.name for column in columns], np.dtype(params.dtype)
    inputs = [*chain(*(inputs_of(name, categories) for name in names))]
    writers = [SplitWriter(folder / f"{name}.parquet", inputs, params.dtype) for name in SPLITS]
    for labels in split_labels(sizes, params.split, params.seed):
        content = bytearray(spool.read(len(labels) * len(names) * dtype.itemsize))
        rows = np.frombuffer(content, dtype).reshape(len(labels), len(names))
        for column, cells in zip(columns, rows.T, strict=True):
            column.recode(cells)
        rows = encode(rows, names, categories)
        for label, writer in enumerate(writers):
            writer.write(rows[labels == label])
    for writer in writers:
        writer.close()


def statistics(
    training: Split, sizes: tuple[int, ...], categories: dict[str, list[str]]
) -> Statistics:
    """Describe the training rows, block by block."""
    columns, blocks = [*training.features, training.target], range(training.num_blocks)
    lowest, highest = np.empty((2, len(blocks), len(columns)))

    def cells(block: int) -> NDArray[np.float64]:
        return training.read(block).astype(np.float64)

    def squares(block: int) -> NDArray[np.float64]:
        rows = cells(block)
        lowest[block], highest[block] = rows.min(axis=0), rows.max(axis=0)
        return column_sums((rows - mean) ** 2)

    mean = ordered_mean(cells, blocks, training.num_rows)
    variance = ordered_sum(squares, blocks) / training.num_rows
    if not np.isfinite(variance).all():
        column = columns[np.isfinite(variance).argmin()]
        raise UserError(
            f"prepare: the numbers of `{column}` are too large to square. Rescale the column."
        )
    names = "mean", "standard_deviation", "minimum", "maximum"
    values = np.stack([mean, np.sqrt(variance), lowest.min(axis=0), highest.max(axis=0)])
    values += 0.0  # -0.0 becomes 0.0: the minimum of the two depends on the CPU
    by_column = [dict(zip(columns, row, strict=True)) for row in values.tolist()]
    described = dict(zip(names, by_column, strict=True))
    rows = dict(zip(SPLITS, sizes, strict=True))
    return Statistics(columns=columns, categories=categories, rows=rows, **described)


if __name__ == "__main__":
    run(main)

"""Make the rows to learn from: a user's table, or a line with noise.

Reads params.yaml and data/raw/; writes data/prepared/.
"""

from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stages.parts.errors import UserError
from stages.parts.exact_sum import exact_mean, exact_sum
from stages.parts.files import PREPARED, RAW, output_folder, write_json
from stages.parts.line import line
from stages.parts.params import PrepareParams, load_params
from stages.parts.process import run
from stages.parts.split import SPLITS, Split, SplitWriter, Statistics, split_labels
from stages.parts.table import Batches, choose_columns, read_table

MAX_RANDOM_ROWS = 10**9 - 1  # what numpy's multivariate_hypergeometric can draw from


def main() -> None:
    params = load_params().prepare
    columns, batches = open_source(params)
    with output_folder(PREPARED) as folder, TemporaryFile(dir=folder) as spool:
        num_rows, num_dropped = spool_rows(batches, columns, params, spool)
        sizes = split_sizes(num_rows, params)
        write_splits(spool, columns, sizes, params, folder)
        training = Split(folder / "train.parquet")
        write_json(folder / "statistics.json", statistics(training, sizes).model_dump())
    dropped = f", {num_dropped} with missing cells dropped" if num_dropped else ""
    shares = ", ".join(f"{size} {name}" for name, size in zip(SPLITS, sizes, strict=True))
    print(f"prepare: {num_rows} rows from {params.source}{dropped}: {shares}")


def open_source(params: PrepareParams) -> tuple[list[str], Batches]:
    """The chosen columns, features before target, and their float64 rows, batch by batch."""
    if params.source != "line":
        return read_table(RAW / params.source.removeprefix(f"{RAW}/"), params)
    names = ["x", "y"]
    columns = choose_columns("the line", names, params)
    order = [names.index(column) for column in columns]
    batches = line(params.rows, params.m, params.b, params.noise, params.seed)
    return columns, (batch[:, order] for batch in batches)


def spool_rows(
    batches: Batches, columns: list[str], params: PrepareParams, spool: IO[bytes]
) -> tuple[int, int]:
    """Write the rows that have no missing cell, in ``params.dtype``; count them, and the others."""
    num_rows = num_dropped = 0
    for batch in batches:
        kept = batch[np.isfinite(batch).all(axis=1)] if params.missing == "drop" else batch
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(kept, params.dtype)
        too_large = ~np.isfinite(rows).all(axis=0)
        if too_large.any():
            raise UserError(
                f"prepare: column `{columns[too_large.argmax()]}` holds a number too large for"
                f" {params.dtype}. Rescale the column, or set `prepare.dtype` to float64."
            )
        spool.write(rows.data)
        num_rows += len(rows)
        num_dropped += len(batch) - len(rows)
    spool.seek(0)
    return num_rows, num_dropped


def split_sizes(num_rows: int, params: PrepareParams) -> tuple[int, ...]:
    """Rows to train, validate and test with; fractions are rounded to the nearest row."""
    num_validation, num_test = round(num_rows * params.validation), round(num_rows * params.test)
    sizes = num_rows - num_validation - num_test, num_validation, num_test
    fractions = 1.0, params.validation, params.test
    empty = [
        name for name, size, part in zip(SPLITS, sizes, fractions, strict=True) if part and size < 1
    ]
    if empty:
        raise UserError(
            f"prepare: {num_rows} rows are too few: none is left for {', '.join(empty)}."
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
    columns: list[str],
    sizes: tuple[int, ...],
    params: PrepareParams,
    folder: Path,
) -> None:
    """Deal the spooled rows out to one Parquet file per split."""
    writers = [SplitWriter(folder / f"{name}.parquet", columns, params.dtype) for name in SPLITS]
    dtype = np.dtype(params.dtype)
    for labels in split_labels(sizes, params.split, params.seed):
        cells = spool.read(len(labels) * len(columns) * dtype.itemsize)
        rows = np.frombuffer(cells, dtype).reshape(len(labels), len(columns))
        for label, writer in enumerate(writers):
            writer.write(rows[labels == label])
    for writer in writers:
        writer.close()


def statistics(training: Split, sizes: tuple[int, ...]) -> Statistics:
    """Describe the training rows, block by block."""
    columns = [*training.features, training.target]
    blocks = range(training.num_blocks)

    def cells(block: int) -> NDArray[np.float64]:
        return training.read(block).astype(np.float64)

    def squares(block: int) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):  # here and not around the threads: it holds for one thread
            return (cells(block) - mean) ** 2

    mean = exact_mean(cells, blocks, len(columns), training.num_rows)
    variance = exact_sum(squares, blocks, len(columns)) / training.num_rows
    if not np.isfinite(variance).all():
        raise UserError("prepare: the numbers are too large to square. Rescale the columns.")
    return Statistics(
        columns=columns,
        rows=dict(zip(SPLITS, sizes, strict=True)),
        mean=dict(zip(columns, mean.tolist(), strict=True)),
        standard_deviation=dict(zip(columns, np.sqrt(variance).tolist(), strict=True)),
    )


if __name__ == "__main__":
    run(main)

"""Prepare the rows to learn from: a user's table, or a line with noise.

Reads params.yaml and data/raw/; writes data/prepared/.
"""

from collections.abc import Mapping
from functools import partial
from itertools import chain, compress
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.base.errors import UserError
from stages.base.files import PREPARE_PARAMS, PREPARED, RAW, write_json
from stages.base.outputs import output_folder
from stages.base.params import PrepareParams, load_params
from stages.base.process import run
from stages.rows.categories import inputs_of
from stages.rows.ordered_sum import column_sums, ordered_mean, ordered_sum
from stages.rows.split import SPLITS, Floats, Split, SplitWriter, Statistics
from stages.tables.columns import choose_columns, read_rows, require_names
from stages.tables.hints import hints
from stages.tables.line import Line
from stages.tables.spool import Labelled, learn, read_spool, spool_rows
from stages.tables.table import Table, listed


def main() -> None:
    params = load_params().prepare
    table, is_filled = open_table(params), params.missing == "fill"
    columns = choose_columns(table, params)
    names = [column.name for column in columns]
    with output_folder(PREPARED) as folder, TemporaryFile(dir=folder) as spool:
        batches = read_rows(table, columns, params)
        num_rows, num_dropped, num_filled = spool_rows(batches, spool, len(names), is_filled)
        required = columns[-1:] if is_filled else columns
        missing = counted({column.name: column.missing.num_cells for column in required})
        dropped = f", {num_dropped} with missing cells dropped ({missing})" if num_dropped else ""
        found = {column.name: texts for column in columns if (texts := column.categories())}
        inputs = [*chain(*(inputs_of(name, found) for name in names))]
        require_names(str(table.path), inputs)
        sizes = split_sizes(num_rows, dropped, params)
        read = partial(read_spool, spool, columns, found, sizes, params)
        is_kept, means = learn(read(), is_filled)
        is_kept[-1] = True  # the target
        kept = [*compress(inputs, is_kept)]
        if len(kept) == 1:
            raise UserError(
                "prepare: no column to learn from varies in the training rows. Add rows, or choose"
                " other columns."
            )
        writers = [SplitWriter(folder / f"{name}.parquet", kept, params.dtype) for name in SPLITS]
        write_splits(read(), writers, is_kept, means)
        mean_of = dict(zip(inputs, means.tolist(), strict=True))
        fill = {name: mean_of[name] for name in kept[:-1] if is_filled and name in names}
        categories = {
            name: texts
            for name in found
            if (texts := [text for text in found[name] if f"{name}={text}" in kept])
        }
        used = {*kept, *categories}
        counts = zip(names, num_filled.tolist(), strict=True)
        filled = {name: count for name, count in counts if count and name in used}
        training = Split(folder / "train.parquet")
        described = statistics(training, sizes, categories, fill=fill, filled=filled)
        write_json(folder / "statistics.json", described.model_dump())
        write_json(folder / PREPARE_PARAMS.name, params.model_dump())
    split_listing = ", ".join(f"{size} {name}" for name, size in zip(SPLITS, sizes, strict=True))
    filling = f", missing cells filled ({counted(filled)})" if filled else ""
    print(f"prepare: {num_rows} rows from {params.source}{dropped}{filling}: {split_listing}")
    listings = {
        "numbers": listed([name for name in names if name not in found]),
        "categories": counted({name: len(texts) for name, texts in found.items()}),
        "ignored": listed([name for name in table.names if name not in names]),
        "left out, constant in the training rows": listed([*compress(inputs, ~is_kept)]),
    }
    print(f"prepare: {'; '.join(f'{kind}: {text}' for kind, text in listings.items() if text)}")
    for hint in hints(Split(PREPARED / "train.parquet"), params):
        print(f"prepare: hint: {hint}")


def open_table(params: PrepareParams) -> Table | Line:
    """Open the table, or the line, that `prepare.source` names."""
    if params.source == "line":
        return Line(params.rows, params.m, params.b, params.noise, params.seed)
    path = RAW / params.source.removeprefix(f"{RAW}/")
    for folder in [path, *path.parents][: -len(RAW.parents) - 1]:  # those in data/raw
        if folder.is_dir() and (folder.is_symlink() or (folder / ".dvc").exists()):
            raise UserError(
                f"{folder} is a link, or a DVC project of its own: DVC does not notice when its"
                f" files change. Copy them into {RAW}, or use `dvc import-url` or `dvc import`."
            )
    return Table(path, params.delimiter)


def counted(counts: Mapping[str, int]) -> str:
    """The first ten names whose count is not 0, with their counts."""
    items = [f"`{name}` {count}" for name, count in counts.items() if count]
    return ", ".join(items[:10]) + (", …" if items[10:] else "")


def split_sizes(num_rows: int, dropped: str, params: PrepareParams) -> tuple[int, ...]:
    """The numbers of training, validation and test rows, each rounded to the nearest row."""
    num_validation, num_test = round(num_rows * params.validation), round(num_rows * params.test)
    sizes = num_rows - num_validation - num_test, num_validation, num_test
    fractions = zip(SPLITS, sizes, (1.0, params.validation, params.test), strict=True)
    if empty := [name for name, size, fraction in fractions if fraction and size < 1]:
        raise UserError(
            f"prepare: {num_rows} rows are too few{dropped}: no row is left for {', '.join(empty)}."
            " Add rows, or change `prepare.features`, `prepare.validation` or `prepare.test`."
        )
    return sizes


def write_splits(
    labelled: Labelled, writers: list[SplitWriter], is_kept: NDArray[np.bool_], fill: Floats
) -> None:
    """Write the kept inputs of each split; ``fill``, shape ``(inputs,)``, is for missing cells."""
    for labels, rows in labelled:
        is_missing = ~np.isfinite(rows)
        if is_missing.any():
            np.copyto(rows, fill, where=is_missing)
        values = rows if is_kept.all() else rows[:, is_kept]
        for label, writer in enumerate(writers):
            writer.write(values[labels == label])
    for writer in writers:
        writer.close()


def statistics(
    training: Split, sizes: tuple[int, ...], categories: dict[str, list[str]], **others: Any
) -> Statistics:
    """Describe the training rows, block by block; the others are written as they are."""
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
    return Statistics(columns=columns, categories=categories, rows=rows, **others, **described)


if __name__ == "__main__":
    run(main)

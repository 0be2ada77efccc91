"""The rows of one step, in blocks: those that fit stay in memory, the others are read again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from stages.base.progress import Progress
from stages.base.threads import in_order
from stages.model.model import Model
from stages.rows.split import Split, block_rows
from stages.training.memory import available_bytes
from stages.training.ranks import Ranks

# The purposes of these streams of random numbers: [seed, purpose, epoch, …].
BLOCK_SHUFFLE, ROW_SHUFFLE = 3, 4
WINDOW_BLOCKS = 8  # shuffled together, about 32 MB of float32

MAX_LAYER_VALUES = 2**18
MIN_LAYER_ROWS = 2**12


@dataclass(frozen=True)
class ScaledRows:
    """Rows, scaled for the network: inputs ``(rows, features)``, targets ``(rows, 1)``."""

    inputs: Tensor
    targets: Tensor

    def __getitem__(self, chosen: slice | Tensor) -> Self:
        return replace(self, inputs=self.inputs[chosen], targets=self.targets[chosen])

    @property
    def num_rows(self) -> int:
        """How many rows these are."""
        return self.targets.shape[0]

    def blocks(self, size: int) -> "list[ScaledRows]":
        """Views, cut at ``size``; at least one."""
        return list(map(ScaledRows, self.inputs.split(size), self.targets.split(size)))

    def load(self) -> "list[ScaledRows]":
        """The rows, in blocks."""
        return [self]


@dataclass(frozen=True)
class StoredBlock:
    """A block of the file that is not kept, to be cut at ``size``."""

    table: "ScaledSplit"
    index: int
    num_rows: int
    size: int

    def load(self) -> list[ScaledRows]:
        """Read the rows, in blocks."""
        return self.table.block(self.index).blocks(self.size)


Block = ScaledRows | StoredBlock


@dataclass(frozen=True)
class ScaledSplit:
    """All rows of a split; the first ones are kept in memory."""

    split: Split
    model: Model
    kept: ScaledRows

    @property
    def num_rows(self) -> int:
        """How many rows these are."""
        return self.split.num_rows

    def blocks(self, size: int) -> list[Block]:
        """All rows in the file's order; views of those that are kept, cut at ``size``."""
        rows = self.split.block_rows
        starts = range(self.kept.num_rows, self.num_rows, rows)
        return self.kept.blocks(size) + [
            StoredBlock(self, start // rows, min(rows, self.num_rows - start), size)
            for start in starts
        ]

    def block(self, index: int) -> ScaledRows:
        """The rows of one block of the file."""
        rows = self.split.block_rows
        if index * rows < self.kept.num_rows:
            return self.kept[index * rows : (index + 1) * rows]
        return scaled(self.split, index, self.model)


def load_splits(
    training: Split, validation: Split, model: Model, ranks: Ranks
) -> tuple[ScaledSplit, ScaledSplit]:
    """The rows of both splits, as many as half of the memory takes; at least a block of each."""
    num_rows = training.num_rows + validation.num_rows
    num_bytes = num_rows * (len(model.features) + 1) * model.dtype.itemsize
    share = ranks.least(available_bytes(model.input_mean.device) / 2 / num_bytes)
    tables = load(training, model, min(1.0, share)), load(validation, model, min(1.0, share))
    num_kept = sum(table.kept.num_rows for table in tables)
    if num_kept < num_rows and ranks.rank == 0:
        kept = f"train: {num_kept} of {num_rows} rows stay in memory"
        print(f"{kept}, the others are read in every epoch", flush=True)
    return tables


def load(split: Split, model: Model, share: float) -> ScaledSplit:
    """Read and scale the first blocks of a split: a share of them, and at least one."""
    num_kept = max(1, int(share * split.num_blocks))
    num_rows = min(split.num_rows, num_kept * split.block_rows)
    device = model.input_mean.device
    kept = ScaledRows(
        torch.empty(num_rows, len(split.features), dtype=model.dtype, device=device),
        torch.empty(num_rows, 1, dtype=model.dtype, device=device),
    )
    table = ScaledSplit(split, model, kept)
    with Progress("train: reading", num_rows) as progress:

        def fill(index: int) -> None:
            rows, place = scaled(split, index, model), table.block(index)
            place.inputs.copy_(rows.inputs)
            place.targets.copy_(rows.targets)
            progress.add(rows.num_rows)

        for _ in in_order(fill, range(min(num_kept, split.num_blocks))):
            pass
    return table


def scaled(split: Split, index: int, model: Model) -> ScaledRows:
    """One block of a split, as the network takes it, on the model's device.

    Column by column, which is what a file's block consists of: no other copy of it is made.
    """
    columns = split.read_columns(index)
    dtype, num_rows = columns[0].dtype, len(columns[0])
    inputs, targets = np.empty((num_rows, len(columns) - 1), dtype), np.empty((num_rows, 1), dtype)
    units = zip(*(unit.cpu().numpy() for unit in model.units()), strict=True)
    with np.errstate(over="ignore"):  # an infinite loss is reported where it arises
        for column, place, unit in zip(columns, [*inputs.T, *targets.T], units, strict=True):
            np.divide(column - unit[0], unit[1], out=place)
    device = model.input_mean.device
    return ScaledRows(torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device))


def joined(parts: Sequence[ScaledRows]) -> ScaledRows:
    """All rows of the parts; of one part alone no copy."""
    parts = [part for part in parts if part.num_rows] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    return ScaledRows(torch.cat([p.inputs for p in parts]), torch.cat([p.targets for p in parts]))


def block_size(num_features: int, hidden: Sequence[int]) -> int:
    """Rows of a block in training: a function of the numbers of columns and hidden units alone.

    A hidden layer's values for one block fit into a CPU's second-level cache, if they are 4,096
    rows or more: the sums of gradients over fewer would take longer than the gradients. A block of
    the file consists of whole ones.
    """
    layer_rows = 1 << (MAX_LAYER_VALUES // max([1, *hidden])).bit_length() - 1
    return min(block_rows(num_features + 1), max(layer_rows, MIN_LAYER_ROWS))


def batches(
    table: ScaledSplit, batch_size: int | None, seed: int, epoch: int, first_step: int = 0
) -> Iterator[ScaledSplit | ScaledRows]:
    """Yield each row once, ``batch_size`` at a time: a function of the seed and the epoch alone.

    The blocks are shuffled, and the rows of every eight blocks among themselves. ``None`` is all
    rows at once, in the table's order. Batches before ``first_step`` are left out.
    """
    if batch_size is None:
        yield from [table][first_step:]
        return
    order = np.random.default_rng([seed, BLOCK_SHUFFLE, epoch]).permutation(table.split.num_blocks)
    windows = [
        order[start : start + WINDOW_BLOCKS] for start in range(0, len(order), WINDOW_BLOCKS)
    ]

    def shuffled(number: int) -> ScaledRows:
        rows = joined([table.block(index) for index in windows[number]])
        generator = np.random.default_rng([seed, ROW_SHUFFLE, epoch, number])
        return rows[torch.from_numpy(generator.permutation(rows.num_rows)).to(rows.inputs.device)]

    size = table.split.block_rows
    sizes = [sum(min(size, table.num_rows - size * int(i)) for i in window) for window in windows]
    first, num_skipped = 0, first_step * batch_size
    while first < len(windows) and num_skipped >= sizes[first]:
        num_skipped -= sizes[first]
        first += 1
    rest = table.kept[:0]
    for window in in_order(shuffled, range(first, len(windows)), num_ahead=1):
        rows = joined([rest, window[num_skipped:]])
        num_skipped = 0
        num_whole = rows.num_rows // batch_size * batch_size
        if num_whole:
            yield from rows[:num_whole].blocks(batch_size)
        rest = rows[num_whole:]
    if rest.num_rows:
        yield rest

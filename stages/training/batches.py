"""The rows of each step, in blocks. What fits stays in memory; the rest is read in every epoch."""

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

# Random numbers start from [seed, purpose, epoch, …]; these are the purposes.
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
        """The number of rows."""
        return self.targets.shape[0]

    def blocks(self, size: int) -> "list[ScaledRows]":
        """Return blocks of ``size`` rows, at least one; they are views."""
        return list(map(ScaledRows, self.inputs.split(size), self.targets.split(size)))

    def load(self) -> "list[ScaledRows]":
        """Return the rows: they are in memory already."""
        return [self]


@dataclass(frozen=True)
class StoredBlock:
    """A block of the file that is not kept in memory; `load` cuts it into blocks of ``size``."""

    split: "ScaledSplit"
    index: int
    num_rows: int
    size: int

    def load(self) -> list[ScaledRows]:
        """Read the rows, in blocks of ``size``."""
        return self.split.block(self.index).blocks(self.size)


Block = ScaledRows | StoredBlock


@dataclass(frozen=True)
class ScaledSplit:
    """All rows of a split; the first ones are kept in memory."""

    file: Split
    model: Model
    kept: ScaledRows

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return self.file.num_rows

    def blocks(self, size: int) -> list[Block]:
        """Return all rows in the file's order, in blocks of ``size``; kept rows are views."""
        rows = self.file.block_rows
        starts = range(self.kept.num_rows, self.num_rows, rows)
        return self.kept.blocks(size) + [
            StoredBlock(self, start // rows, min(rows, self.num_rows - start), size)
            for start in starts
        ]

    def block(self, index: int) -> ScaledRows:
        """Return the rows of one block of the file."""
        rows = self.file.block_rows
        if index * rows < self.kept.num_rows:
            return self.kept[index * rows : (index + 1) * rows]
        return read_scaled(self.file, index, self.model)


def load_splits(
    training: Split, validation: Split, model: Model, ranks: Ranks
) -> tuple[ScaledSplit, ScaledSplit]:
    """Load both splits: as many rows as fit into half of the memory, at least one block of each."""
    num_rows = training.num_rows + validation.num_rows
    num_bytes = num_rows * (len(model.features) + 1) * model.dtype.itemsize
    fraction = min(1.0, ranks.least(available_bytes(model.input_mean.device) / 2 / num_bytes))
    splits = load(training, model, fraction), load(validation, model, fraction)
    num_kept = sum(split.kept.num_rows for split in splits)
    if num_kept < num_rows and ranks.rank == 0:
        kept = f"train: {num_kept} of {num_rows} rows stay in memory"
        print(f"{kept}; the others are read again in every epoch", flush=True)
    return splits


def load(file: Split, model: Model, fraction: float) -> ScaledSplit:
    """Read and scale the first blocks of a file: a fraction of them, at least one."""
    num_kept = max(1, int(fraction * file.num_blocks))
    num_rows = min(file.num_rows, num_kept * file.block_rows)
    device = model.input_mean.device
    kept = ScaledRows(
        torch.empty(num_rows, len(file.features), dtype=model.dtype, device=device),
        torch.empty(num_rows, 1, dtype=model.dtype, device=device),
    )
    split = ScaledSplit(file, model, kept)
    with Progress("train: reading", num_rows) as progress:

        def fill(index: int) -> None:
            rows, place = read_scaled(file, index, model), split.block(index)
            place.inputs.copy_(rows.inputs)
            place.targets.copy_(rows.targets)
            progress.add(rows.num_rows)

        for _ in in_order(fill, range(min(num_kept, file.num_blocks))):
            pass
    return split


def read_scaled(file: Split, index: int, model: Model) -> ScaledRows:
    """Read one block of a file and scale it for the network, on the model's device.

    It is scaled column by column, as the file stores it: no other copy is made.
    """
    columns = file.read_columns(index)
    dtype, num_rows = columns[0].dtype, len(columns[0])
    inputs, targets = np.empty((num_rows, len(columns) - 1), dtype), np.empty((num_rows, 1), dtype)
    units = zip(*(unit.cpu().numpy() for unit in model.units()), strict=True)
    with np.errstate(over="ignore"):  # training reports an infinite loss
        for column, place, unit in zip(columns, [*inputs.T, *targets.T], units, strict=True):
            np.divide(column - unit[0], unit[1], out=place)
    device = model.input_mean.device
    return ScaledRows(torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device))


def joined(blocks: Sequence[ScaledRows]) -> ScaledRows:
    """Return the rows of all blocks together; a single block is not copied."""
    blocks = [block for block in blocks if block.num_rows] or blocks[:1]
    if len(blocks) == 1:
        return blocks[0]
    return ScaledRows(
        torch.cat([block.inputs for block in blocks]),
        torch.cat([block.targets for block in blocks]),
    )


def block_size(num_features: int, hidden: Sequence[int]) -> int:
    """Return the rows of a block in training; they depend only on ``num_features`` and ``hidden``.

    A block is so small that a hidden layer's values for it fit into a CPU's second-level cache, but
    not below 4,096 rows: adding the gradients of smaller blocks would take longer than computing
    them. A block of the file holds a whole number of these blocks.
    """
    layer_rows = 1 << (MAX_LAYER_VALUES // max([1, *hidden])).bit_length() - 1
    return min(block_rows(num_features + 1), max(layer_rows, MIN_LAYER_ROWS))


def batches(
    split: ScaledSplit, batch_size: int | None, seed: int, epoch: int, first_step: int = 0
) -> Iterator[ScaledSplit | ScaledRows]:
    """Yield each row once, ``batch_size`` rows at a time; the order depends on seed and epoch only.

    The blocks are shuffled first, then the rows within each window of eight blocks. Batches before
    ``first_step`` are left out. If ``batch_size`` is None, the one batch is the whole split in the
    file's order.
    """
    if batch_size is None:
        yield from [split][first_step:]
        return
    order = np.random.default_rng([seed, BLOCK_SHUFFLE, epoch]).permutation(split.file.num_blocks)
    windows = [
        order[start : start + WINDOW_BLOCKS] for start in range(0, len(order), WINDOW_BLOCKS)
    ]

    def shuffled(number: int) -> ScaledRows:
        rows = joined([split.block(index) for index in windows[number]])
        generator = np.random.default_rng([seed, ROW_SHUFFLE, epoch, number])
        return rows[torch.from_numpy(generator.permutation(rows.num_rows)).to(rows.inputs.device)]

    size = split.file.block_rows
    sizes = [sum(min(size, split.num_rows - size * int(i)) for i in window) for window in windows]
    first, num_skipped = 0, first_step * batch_size
    while first < len(windows) and num_skipped >= sizes[first]:
        num_skipped -= sizes[first]
        first += 1
    rest = split.kept[:0]
    for window in in_order(shuffled, range(first, len(windows)), num_ahead=1):
        rows = joined([rest, window[num_skipped:]])
        num_skipped = 0
        num_whole = rows.num_rows // batch_size * batch_size
        if num_whole:
            yield from rows[:num_whole].blocks(batch_size)
        rest = rows[num_whole:]
    if rest.num_rows:
        yield rest

"""The rows of each step. They are scaled once; the operating system keeps what fits in memory."""

import copy
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from stages.base.progress import Progress
from stages.base.threads import in_order
from stages.model.model import Model
from stages.rows.split import Split, block_rows

# Random numbers start from [seed, purpose, epoch, …]; these are the purposes.
BLOCK_SHUFFLE, ROW_SHUFFLE = 3, 4
WINDOW_BLOCKS = 8  # shuffled together, about 32 MB of float32
MAX_LAYER_VALUES = 2**18
MIN_LAYER_ROWS = 2**12
MAX_ACCELERATOR_VALUES = 2**24  # of a layer, 64 MiB of float32
MAX_ORDINARY_BYTES = 2**28


@dataclass(frozen=True)
class ScaledRows:
    """Rows, scaled for the network: inputs ``(rows, features)``, targets ``(rows, 1)``."""

    inputs: Tensor
    targets: Tensor

    def __getitem__(self, chosen: slice | Tensor) -> Self:
        return type(self)(self.inputs[chosen], self.targets[chosen])

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return self.targets.shape[0]

    def blocks(self, size: int) -> list[Self]:
        """Return blocks of ``size`` rows, at least one; they are views."""
        return list(map(type(self), self.inputs.split(size), self.targets.split(size)))

    def to(self, device: torch.device) -> Self:
        """Return the rows on a device; if they are there already, without a copy.

        A GPU copies up to 256 MiB from pinned memory, which is faster.
        """
        if self.inputs.device == device:
            return self
        tensors = [self.inputs, self.targets]
        if device.type not in {"cpu", "mps"} and self.inputs.nbytes <= MAX_ORDINARY_BYTES:
            tensors = [tensor.pin_memory() for tensor in tensors]
        return type(self)(*(tensor.to(device) for tensor in tensors))


def load_rows(split: Split, model: Model, folder: Path) -> ScaledRows:
    """Return all rows of a split, scaled as the model scales.

    More than 256 MiB lie in a file of ``folder`` without a name, mapped into memory: the operating
    system keeps what fits, and reads the rest again when it is used. On an accelerator, they lie on
    the device if they fit into half of its free memory.
    """
    num_features = len(split.features)
    values = mapped(split.num_rows * (num_features + 1), model.dtype, folder)
    inputs, targets = values.split([split.num_rows * num_features, split.num_rows])
    rows = ScaledRows(inputs.reshape(-1, num_features), targets.reshape(-1, 1))
    blocks = rows.blocks(split.block_rows)
    means, scales = (unit.cpu().numpy() for unit in model.units())
    with Progress("train: reading", split.num_rows) as progress:

        def fill(index: int) -> None:
            block = blocks[index]
            places = [*block.inputs.numpy().T, *block.targets.numpy().T]
            with np.errstate(over="ignore"):  # an infinite loss is reported where it arises
                for column, place, mean, scale in zip(
                    split.read_columns(index), places, means, scales, strict=True
                ):
                    np.divide(column - mean, scale, out=place)
            progress.add(block.num_rows)

        for _ in in_order(fill, range(split.num_blocks)):
            pass
    device = model.input_mean.device
    if device.type not in {"cpu", "mps"}:
        free_bytes, _ = torch.accelerator.get_memory_info(device)
        if values.nbytes <= free_bytes / 2:
            return rows.to(device)
    return rows


def mapped(num_values: int, dtype: torch.dtype, folder: Path) -> Tensor:
    """Return a tensor in a file without a name; it is on the disk alone if memory is short.

    A small one lies in ordinary memory, which is read faster by a tenth.
    """
    size_bytes = num_values * dtype.itemsize
    if size_bytes <= MAX_ORDINARY_BYTES:
        return torch.empty(num_values, dtype=dtype)
    with TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not a crash later
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        file.truncate(size_bytes)
        memory = mmap.mmap(file.fileno(), size_bytes)
    if hasattr(mmap, "MADV_SEQUENTIAL"):
        memory.madvise(mmap.MADV_SEQUENTIAL)  # else Linux soon reads page by page, 4 KiB each
    return torch.frombuffer(memory, dtype=dtype)


def joined(windows: Sequence[ScaledRows]) -> ScaledRows:
    """Return all rows as one; if only one of the arguments has rows, without a copy."""
    windows = [rows for rows in windows if rows.num_rows] or windows[:1]
    if len(windows) == 1:
        return windows[0]
    return ScaledRows(
        torch.cat([rows.inputs for rows in windows]), torch.cat([rows.targets for rows in windows])
    )


def block_size(network: nn.Module, num_features: int) -> int:
    """Return the rows of a block in training; they depend on features and network only.

    The values of the widest layer for one block fit into the second-level cache of a CPU, if this
    allows at least 4,096 rows. With fewer rows, adding the gradients takes longer than computing
    them. A block of the file consists of whole blocks in training. An accelerator has other blocks:
    large ones, because each of its operations takes some microseconds to start.
    """
    widths = [1]
    watched = copy.deepcopy(network)
    for module in watched.modules():
        module.register_forward_hook(
            lambda *arguments: widths.extend(a.numel() for a in arguments if isinstance(a, Tensor))
        )
    parameter = next(network.parameters())
    watched(torch.zeros(1, num_features, dtype=parameter.dtype, device=parameter.device))
    if parameter.device.type != "cpu":
        return max(MAX_ACCELERATOR_VALUES // max(*widths, num_features), 1)
    layer_rows = 1 << (MAX_LAYER_VALUES // max(widths)).bit_length() - 1
    return min(block_rows(num_features + 1), max(layer_rows, MIN_LAYER_ROWS))


def batches(
    rows: ScaledRows, batch_size: int | None, seed: int, epoch: int, device: torch.device
) -> Iterator[ScaledRows]:
    """Yield each row once, ``batch_size`` rows at a time; the order depends on seed and epoch only.

    The blocks of the file are shuffled. Then the rows of every eight blocks are shuffled together,
    on the device: they are copied to it while it computes. ``None`` means all rows at once, in
    their own order, and where they are.
    """
    if batch_size is None:
        yield rows
        return
    blocks = rows.blocks(block_rows(rows.inputs.shape[1] + 1))
    order = np.random.default_rng([seed, BLOCK_SHUFFLE, epoch]).permutation(len(blocks))

    def shuffled(start: int) -> ScaledRows:
        window = joined([blocks[index] for index in order[start : start + WINDOW_BLOCKS]])
        window = window.to(device)
        generator = np.random.default_rng([seed, ROW_SHUFFLE, epoch, start // WINDOW_BLOCKS])
        row_order = torch.from_numpy(generator.permutation(window.num_rows))
        return window[row_order.to(device)]

    rest = rows[:0]
    for window in in_order(shuffled, range(0, len(blocks), WINDOW_BLOCKS), num_ahead=1):
        available = joined([rest, window])
        num_whole = available.num_rows // batch_size * batch_size
        if num_whole:
            yield from available[:num_whole].blocks(batch_size)
        rest = available[num_whole:]
    if rest.num_rows:
        yield rest

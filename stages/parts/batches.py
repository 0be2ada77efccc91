"""The rows of one step, in blocks."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stages.parts.model import Model
from stages.parts.split import Split, block_rows
from stages.parts.workers import in_order

SHUFFLE = 3  # the purpose of this stream of random numbers: [seed, SHUFFLE, epoch]

MAX_LAYER_VALUES = 2**18
MIN_LAYER_ROWS = 2**12


class Rows(NamedTuple):
    """Rows, scaled for the network: inputs ``(rows, features)``, targets ``(rows, 1)``."""

    inputs: Tensor
    targets: Tensor

    @property
    def num_rows(self) -> int:
        """How many rows these are."""
        return self.targets.shape[0]


def load_rows(split: Split, model: Model) -> Rows:
    """All rows of a split, scaled as ``model`` scales, on its device."""
    device = model.input_mean.device
    rows = Rows(
        torch.empty(split.num_rows, len(model.features), dtype=model.dtype, device=device),
        torch.empty(split.num_rows, 1, dtype=model.dtype, device=device),
    )
    start = 0
    for index in range(split.num_blocks):
        cells = torch.from_numpy(split.read(index)).to(device)
        stop = start + len(cells)
        rows.inputs[start:stop] = model.scale_inputs(cells[:, :-1])
        rows.targets[start:stop] = model.scale_targets(cells[:, -1:])
        start = stop
    return rows


def block_size(num_features: int, hidden: Sequence[int]) -> int:
    """Rows of a block in training: a function of the numbers of columns and hidden units alone.

    A hidden layer's values for one block fit into a CPU's second-level cache, if they are 4,096
    rows or more: the sums of gradients over fewer would take longer than the gradients.
    """
    layer_rows = 1 << (MAX_LAYER_VALUES // max([1, *hidden])).bit_length() - 1
    return min(block_rows(num_features + 1), max(layer_rows, MIN_LAYER_ROWS))


def blocks(rows: Rows, size: int) -> list[Rows]:
    """Views of ``rows``, cut at ``size``."""
    if rows.num_rows <= size:
        return [rows]
    return [
        Rows(*pair) for pair in zip(rows.inputs.split(size), rows.targets.split(size), strict=True)
    ]


def batches(
    rows: Rows, batch_size: int | None, seed: int, epoch: int, first_step: int = 0
) -> Iterator[Rows]:
    """Yield each row once, ``batch_size`` at a time: a function of the seed and the epoch alone.

    ``None`` is all rows at once, in the table's order. Those before ``first_step`` are left out.
    """
    if batch_size is None:
        yield from [rows][first_step:]
        return
    generator = np.random.default_rng([seed, SHUFFLE, epoch])
    order = torch.from_numpy(generator.permutation(rows.num_rows)[first_step * batch_size :])
    order = order.to(rows.inputs.device)
    size = block_rows(rows.inputs.shape[1] + 1)

    def gather(chosen: Tensor) -> Rows:
        return Rows(rows.inputs[chosen], rows.targets[chosen])

    portions = order.split(batch_size * max(1, size // batch_size))  # about a block each
    for portion in in_order(gather, portions if len(order) else []):
        for pair in zip(*(tensor.split(batch_size) for tensor in portion), strict=True):
            yield Rows(*pair)

"""A loss and its gradient: computed block by block, in threads and ranks, and added exactly."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stages.training.batches import Block, ScaledRows
from stages.training.ranks import Ranks


def backward(
    loss_of: Callable[[ScaledRows], Tensor],
    blocks: Sequence[Block],
    parameters: Sequence[nn.Parameter],
    ranks: Ranks,
) -> float:
    """Set each parameter's ``grad`` to the gradient of the mean loss of all rows; return that loss.

    ``loss_of`` gives the mean loss of a block's rows. The result is the same bits for any number of
    threads and ranks. A single block is PyTorch's own ``loss.backward()``, in every rank. Where one
    of several blocks is not finite, all is NaN.
    """
    if len(blocks) == 1:
        [rows] = blocks[0].load()
        ranks.meet()  # nothing else would tell one that another has ended
        loss = loss_of(rows)
        loss.backward()
        return loss.item()

    def loss_and_gradient(rows: ScaledRows) -> NDArray[np.float64]:
        loss = loss_of(rows)
        parts = [loss.detach(), *torch.autograd.grad(loss, parameters)]
        means = torch.cat([part.reshape(-1) for part in parts]).cpu().double().numpy()
        return means * rows.num_rows

    def losses_and_gradients(block: Block) -> NDArray[np.float64]:
        return np.stack([loss_and_gradient(rows) for rows in block.load()])

    total = ranks.exact_sum(losses_and_gradients, blocks, 1 + sum(p.numel() for p in parameters))
    mean = torch.from_numpy(total / sum(block.num_rows for block in blocks))
    gradients = mean[1:].split([p.numel() for p in parameters])
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.reshape(parameter.shape).to(parameter)
    return mean[0].item()


def mean_loss(
    loss_of: Callable[[ScaledRows], Tensor], blocks: Sequence[Block], ranks: Ranks
) -> float | None:
    """The mean loss of all rows, without its gradient; None if there are none."""
    num_rows = sum(block.num_rows for block in blocks)
    if not num_rows:
        return None

    @torch.no_grad()  # here and not around the threads: it holds for one thread
    def block_losses(block: Block) -> NDArray[np.float64]:
        return np.array([[loss_of(rows).item() * rows.num_rows] for rows in block.load()])

    if len(blocks) == 1:
        [rows] = blocks[0].load()
        with torch.no_grad():
            return loss_of(rows).item()
    return ranks.exact_sum(block_losses, blocks, size=1).item() / num_rows

"""Loss and gradient: computed block by block, by threads and ranks, and added exactly."""

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
    """Set each parameter's ``grad`` to the gradient of the mean loss of all rows.

    The result has the same bits for any number of threads and ranks. With a single block, every
    rank calls PyTorch's own ``loss.backward()``.

    Args:
        loss_of: Computes the mean loss of a block's rows.
        blocks: The rows.
        parameters: The network's parameters.
        ranks: Share the work.

    Returns:
        The mean loss of all rows. If one of several blocks has a loss or gradient that is not
        finite, the loss and all gradients are NaN.
    """
    if len(blocks) == 1:
        [rows] = blocks[0].load()
        ranks.meet()  # otherwise this rank would not notice that another one has ended
        loss = loss_of(rows)
        loss.backward()
        return loss.item()

    def loss_and_gradient(rows: ScaledRows) -> NDArray[np.float64]:
        loss = loss_of(rows)
        tensors = [loss.detach(), *torch.autograd.grad(loss, parameters)]
        means = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu().double().numpy()
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
    """Return the mean loss of all rows, without gradients; None if there are no rows."""
    num_rows = sum(block.num_rows for block in blocks)
    if not num_rows:
        return None

    @torch.no_grad()  # on the function: it applies to one thread only
    def block_losses(block: Block) -> NDArray[np.float64]:
        return np.array([[loss_of(rows).item() * rows.num_rows] for rows in block.load()])

    if len(blocks) == 1:
        [rows] = blocks[0].load()
        with torch.no_grad():
            return loss_of(rows).item()
    return ranks.exact_sum(block_losses, blocks, size=1).item() / num_rows

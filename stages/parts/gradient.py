"""The gradient of a sum over blocks: computed block by block, in threads, and added exactly."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stages.parts.batches import Rows
from stages.parts.ranks import Ranks


def backward(
    loss_of: Callable[[Rows], Tensor],
    blocks: Sequence[Rows],
    parameters: Sequence[nn.Parameter],
    ranks: Ranks,
) -> float:
    """Set each parameter's ``grad`` to the gradient of the blocks' total loss; return that loss.

    The result is the same bits for any number of threads and ranks. A single block is PyTorch's own
    ``loss.backward()``, in every rank. Where one of several blocks is not finite, all is NaN.
    """
    if len(blocks) == 1:
        loss = loss_of(blocks[0])
        loss.backward()
        return loss.item()

    def loss_and_gradient(block: Rows) -> NDArray[np.float64]:
        loss = loss_of(block)
        parts = [loss.detach(), *torch.autograd.grad(loss, parameters)]
        return torch.cat([part.reshape(-1) for part in parts]).cpu().double().numpy()[None]

    total = ranks.exact_sum(loss_and_gradient, blocks, 1 + sum(p.numel() for p in parameters))
    gradients = torch.from_numpy(total[1:]).split([p.numel() for p in parameters])
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.reshape(parameter.shape).to(parameter)
    return float(total[0])

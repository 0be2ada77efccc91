"""The mean loss of many rows, block by block; its `backward()` is PyTorch's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stages.training.batches import ScaledRows
from stages.training.ranks import Ranks


def mean_loss(
    block_loss: Callable[[ScaledRows], Tensor],
    blocks: Sequence[ScaledRows],
    parameters: Sequence[nn.Parameter],
    ranks: Ranks,
) -> Tensor:
    """Return the mean loss of all rows; its ``backward()`` sets the gradients of the parameters.

    Each block is computed by one thread of one rank; losses and gradients are added in the blocks'
    order. So the bits are the same for any number of threads and ranks. With gradients, they are
    computed here, block by block, and ``backward()`` hands them on. A single block is left to
    PyTorch alone.

    Args:
        block_loss: Computes the mean loss of a block's rows.
        blocks: The rows.
        parameters: The network's parameters.
        ranks: Share the work.
    """
    if len(blocks) == 1:
        ranks.meet()  # otherwise this rank would not notice that another one has ended
        return block_loss(blocks[0])
    has_gradient = torch.is_grad_enabled()

    def totals(block: ScaledRows) -> NDArray[np.float64]:
        with torch.set_grad_enabled(has_gradient):  # it applies to one thread only
            loss = block_loss(block)
        gradients = torch.autograd.grad(loss, parameters) if has_gradient else ()
        tensors = [loss.detach(), *gradients]
        means = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu().double().numpy()
        return np.asarray(means * block.num_rows)

    size = 1 + sum(parameter.numel() for parameter in parameters) * has_gradient
    total = ranks.ordered_sum(totals, blocks, size)
    mean = torch.from_numpy(total / sum(block.num_rows for block in blocks))
    if not has_gradient:
        return mean[0]
    gradients = mean[1:].split([parameter.numel() for parameter in parameters])
    shaped = [
        gradient.reshape(parameter.shape).to(parameter)
        for gradient, parameter in zip(gradients, parameters, strict=True)
    ]
    return _KnownGradient.apply(mean[0], shaped, *parameters)  # type: ignore[no-untyped-call]


class _KnownGradient(torch.autograd.Function):
    """A loss, as a function of the parameters, whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *_: nn.Parameter) -> Tensor:
        ctx.save_for_backward(*gradients)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        factor = upstream.item()
        return None, None, *(gradient * factor for gradient in ctx.saved_tensors)

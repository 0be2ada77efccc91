"""The mean loss of many rows, block by block; its `backward()` is PyTorch's."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from threading import Lock
from typing import Any

import torch
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

    An accelerator computes one block after the other, while other threads copy their blocks to it.
    It adds the gradients itself: a step then waits for it once, when its loss is read.

    Args:
        block_loss: Computes the mean loss of a block's rows.
        blocks: The rows.
        parameters: The network's parameters.
        ranks: Share the work.
    """
    device, dtype = parameters[0].device, parameters[0].dtype
    if len(blocks) == 1:
        ranks.meet()  # otherwise this rank would not notice that another one has ended
        return block_loss(blocks[0].to(device))
    has_gradient = torch.is_grad_enabled()
    # The ranks add in the hosts' memory, and mps has no float64.
    is_added_by_cpu = device.type in {"cpu", "mps"} or ranks.num_ranks > 1
    one_at_a_time = nullcontext() if device.type == "cpu" else Lock()

    def totals(block: ScaledRows) -> Any:
        rows = block.to(device)
        with one_at_a_time, torch.set_grad_enabled(has_gradient):  # it applies to one thread only
            loss = block_loss(rows)
            gradients = torch.autograd.grad(loss, parameters) if has_gradient else ()
            tensors = [loss.detach(), *gradients]
            means = torch.cat([tensor.reshape(-1) for tensor in tensors])
        if is_added_by_cpu:
            return means.cpu().double().numpy() * rows.num_rows
        return means.double() * rows.num_rows

    size = 1 + sum(parameter.numel() for parameter in parameters) * has_gradient
    total = ranks.ordered_sum(totals, blocks, size)
    mean = torch.as_tensor(total / sum(block.num_rows for block in blocks))
    if not has_gradient:
        return mean[0]
    gradients = mean[1:].to(dtype).to(device).split([p.numel() for p in parameters])
    shaped = [
        gradient.reshape(parameter.shape)
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
        return None, None, *(gradient * upstream for gradient in ctx.saved_tensors)

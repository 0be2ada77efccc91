"""Try a network on a few numbers before it is trained: does it keep what training promises?"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from stages.base.errors import UserError

# Operations with the same bits on every x86-64 CPU; tests compare emulated ones.
PORTABLE = {
    *("abs", "add", "addmm", "cat", "clone", "detach", "div", "empty_like", "expand", "gt"),
    *("huber_loss", "huber_loss_backward", "maximum", "mean", "minimum", "mm", "mse_loss"),
    *("mse_loss_backward", "mul", "neg", "new_zeros", "ones_like", "relu", "select", "sgn"),
    *("slice", "sub", "sum", "t", "threshold_backward", "unsqueeze", "view", "where"),
    "zeros_like",
}


class _Operations(TorchDispatchMode):
    """Note the names of all operations inside the ``with`` block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def probe(network: nn.Module, loss_function: Callable[..., Tensor], num_inputs: int) -> list[str]:
    """Compute two steps with a copy of the network.

    Returns:
        The operations whose bits may depend on the kind of CPU.

    Raises:
        UserError: If rows cannot be computed block by block, at any time and by any thread.
    """
    network = copy.deepcopy(network).train()
    dtype = next(network.parameters()).dtype
    inputs = torch.linspace(-1, 1, 4 * num_inputs, dtype=dtype).reshape(4, num_inputs)
    buffers, random_state = copy.deepcopy([*network.buffers()]), torch.get_rng_state()
    with _Operations() as operations:
        predictions = network(inputs)
        loss_function(predictions, predictions.detach() - 1).backward()
    halves = torch.cat([network(half) for half in inputs.split(2)])
    unused = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    fault = ""
    if predictions.shape != (4, 1):
        fault = f"returns the shape {tuple(predictions.shape)} for 4 rows. Return (rows, 1)"
    elif not torch.equal(random_state, torch.get_rng_state()):
        fault = "draws random numbers, as Dropout does, so no result repeats. Remove that layer"
    elif not all(map(torch.equal, buffers, network.buffers())):
        fault = "keeps statistics of a batch, as BatchNorm does, but a batch is computed block by"
        fault += " block. Use LayerNorm"
    elif not torch.allclose(halves, predictions, rtol=1e-3):
        fault = "predicts a row from other rows, but rows are computed block by block. Remove that"
    elif unused:
        fault = f"has parameters that its forward pass does not use: {unused[0]}. Remove them"
    if fault:
        raise UserError(f"stages/network.py: the network {fault}.")
    return sorted(operations.names - PORTABLE)

"""Layers and optimizers of PyTorch, with bits that do not depend on the CPU."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.overrides import TorchFunctionMode


class ReLU(nn.ReLU):
    """``nn.ReLU`` without the slow gradient of portable kernels (a branch for every number)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs with 0 in place of negative numbers, in the same shape."""
        is_portable = torch.backends.cpu.get_cpu_capability() == "DEFAULT"
        is_exported = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if is_portable and inputs.requires_grad and not is_exported:
            return inputs * torch.gt(inputs.detach(), 0, out=torch.empty_like(inputs))  # 0 or 1
        return super().forward(inputs)


class LBFGS(optim.LBFGS):
    """Each step is one iteration: a direction, then a line search that starts at ``lr``."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(
            parameters,
            lr=lr,
            max_iter=1,
            max_eval=26,  # losses in a step: one first, and at most 25 in the line search
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

    def step(self, closure: Callable[[], float]) -> float:  # type: ignore[override]
        """Take a step; the closure sets the gradients and returns the loss."""
        with _RoundedRoots():
            return super().step(closure)  # type: ignore[no-untyped-call]


class _RoundedRoots(TorchFunctionMode):
    """While active, square roots are rounded correctly; those of MKL depend on the CPU."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.sqrt:
            return torch.as_tensor(np.sqrt(args[0].cpu().numpy()), device=args[0].device)
        return func(*args, **(kwargs or {}))

"""L-BFGS whose bits do not depend on the CPU."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torch.overrides import TorchFunctionMode


class LBFGS(optim.LBFGS):
    """A step is one iteration: a direction, and a line search on it from the learning rate on."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(
            parameters,
            lr=lr,
            max_iter=1,
            max_eval=26,  # of the loss: one before, and at most 25 in the line search
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

    def step(self, closure: Callable[[], float]) -> float:  # type: ignore[override]
        """Take a step; the closure sets the gradients and returns the loss."""
        with _RoundedRoots():
            return super().step(closure)  # type: ignore[no-untyped-call]


class _RoundedRoots(TorchFunctionMode):
    """While active, square roots of tensors are correctly rounded; MKL's bits are the CPU's."""

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

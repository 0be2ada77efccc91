"""The network, its losses, optimizers and learning rate. Replace this with your own.

This file alone knows the layers; everything else asks PyTorch. docs/extending.md shows another one.
"""

import math
from collections.abc import Callable

from torch import Tensor, nn, optim
from torch.nn import functional

from stages.base.params import TrainParams
from stages.base.portable import LBFGS, ReLU

LOSSES: dict[str, Callable[..., Tensor]] = {  # of predictions and targets (rows, 1): their mean
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}


def build_network(num_inputs: int, params: TrainParams) -> nn.Module:
    """Return a network with initial weights: inputs (rows, num_inputs) → predictions (rows, 1).

    With ``train.standardize`` both are z-scores.
    """
    layers: list[nn.Module] = []
    for width in params.hidden:
        layers += [nn.Linear(num_inputs, width), ReLU()]
        num_inputs = width
    return nn.Sequential(*layers, nn.Linear(num_inputs, 1))


def build_optimizer(params: TrainParams, parameters: list[nn.Parameter]) -> optim.Optimizer:
    """Return the optimizer that ``params.optimizer`` names."""
    match params.optimizer:
        case "sgd":
            return optim.SGD(
                parameters,
                lr=params.lr,
                momentum=params.momentum,
                weight_decay=params.weight_decay,
            )
        case "adam":  # AdamW without weight decay is Adam
            # fused, because the other way takes square roots with MKL, whose bits depend on the CPU
            return optim.AdamW(
                parameters, lr=params.lr, weight_decay=params.weight_decay, fused=True
            )
        case "lbfgs":
            return LBFGS(parameters, lr=params.lr)


def set_learning_rate(optimizer: optim.Optimizer, params: TrainParams, epoch: int) -> None:
    """Set the learning rate of an epoch, which counts from 0; nothing else may decide it."""
    rate = params.lr
    if params.schedule == "cosine":  # from lr down to nearly 0
        rate *= (1 + cosine(math.pi * epoch / params.epochs)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate


def cosine(angle: float) -> float:
    """Return the cosine of an angle in [0, π]; the last bit of `math.cos` depends on the CPU."""
    total = term = 1.0
    for number in range(1, 40, 2):  # Taylor's series
        term *= -angle * angle / (number * (number + 1))
        total += term
    return total

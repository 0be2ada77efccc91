"""Compute layers, losses and functions of PyTorch, with their gradients, and print their hashes.

`python -m tests.slow.operations` prints a line of JSON for each: its name, the operations that it
consists of, and the SHA-256 of its results. test_other_cpus.py runs it on emulated CPUs.
"""

import hashlib
import json
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (as everybody writes it)

from stages.base.params import load_params
from stages.base.portable import ReLU
from stages.model.device import set_numerics
from stages.network import LOSSES, build_optimizer
from stages.training.probe import Operations

WIDTH = 24
PROGRAMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    # of an input (rows, 24) and a weight (24, 24)
    "+ - * / neg": lambda x, w: (x + x[:, :1]) * x - x / (1.5 + x * x) + (2 - x) * (-x) / w[0],
    "matmul": lambda x, w: x @ w,
    "linear": lambda x, w: F.linear(x, w, w[0]),
    "linear without bias": F.linear,
    "linear, rows of a slice": lambda x, w: F.linear(x[:, ::2], w[:, 1::2], w[0]),
    "bmm": lambda x, w: torch.bmm(x.reshape(-1, 4, 6), x.reshape(-1, 6, 4)),
    "bilinear": lambda x, w: F.bilinear(x[:, :6], x[:, 6:12], w[:, :12].reshape(-1, 6, 6)),
    "einsum": lambda x, w: torch.einsum("ri,io,ro->r", x, w, x),
    "sums": lambda x, w: x.sum() + x.sum(0) * w.sum(1) + x.sum(1, keepdim=True),
    "means": lambda x, w: x.mean() + x.mean(0) * w.mean(1) + x.mean(1, keepdim=True),
    "square": lambda x, w: x.square() * x**2,
    "power 3": lambda x, w: x**3,
    "abs": lambda x, w: x.abs(),
    "sign": lambda x, w: x.sign() * x,
    "maximum, minimum": lambda x, w: torch.maximum(x, -x) + torch.minimum(x, w[0]),
    "clamp": lambda x, w: x.clamp(-0.5, 0.7) + x.clamp_min(0),
    "where": lambda x, w: torch.where(x > 0, x, w[0] * x),
    "cat": lambda x, w: torch.cat([x, x * 2, x[:, :3]], dim=1),
    "stack": lambda x, w: torch.stack([x, -x], dim=1),
    "split": lambda x, w: torch.mul(*x.split(12, dim=1)) + torch.mul(*x.chunk(2, dim=1)),
    "shapes": lambda x, w: (
        x.reshape(-1, 4, 6).transpose(1, 2).flatten(1) + x.unsqueeze(1).squeeze(1)
    ),
    "permute": lambda x, w: x.reshape(-1, 2, 3, 4).permute(0, 3, 1, 2).flatten(1) * w[0],
    "expand": lambda x, w: x[:, None].expand(-1, 2, -1) + w[:2],
    "pad": lambda x, w: F.pad(x, (1, 2)),
    "index": lambda x, w: x[:, [0, 5, 3]] + x.index_select(1, torch.tensor([1, 2, 2])),
    "embedding": lambda x, w: F.embedding((x[:, :2].abs() * 3).long(), w),
    "amax": lambda x, w: x.amax(1) + x.amin(1),
    "max": lambda x, w: x.max(dim=1).values,
    "cumsum": lambda x, w: x.cumsum(1),
    "sqrt": lambda x, w: x.abs().sqrt(),
    "rsqrt": lambda x, w: (x.abs() + 1e-3).rsqrt(),
    "reciprocal": lambda x, w: (x.abs() + 1e-3).reciprocal(),
    "exp": lambda x, w: x.clamp(max=20).exp(),
    "log": lambda x, w: (x.abs() + 1e-3).log(),
    "log1p": lambda x, w: x.abs().log1p(),
    "sin": lambda x, w: x.sin(),
    "cos": lambda x, w: x.cos(),
    "atan": lambda x, w: x.atan(),
    "erf": lambda x, w: x.erf(),
    "var": lambda x, w: x.var(1),
    "std": lambda x, w: x.std(1),
    "norm": lambda x, w: x.norm(dim=1),
    "relu": lambda x, w: F.relu(x),
    "ReLU of stages.base.portable": lambda x, w: ReLU()(x),
    "relu6": lambda x, w: F.relu6(x),
    "leaky_relu": lambda x, w: F.leaky_relu(x),
    "prelu": lambda x, w: F.prelu(x, w[0, :1]),
    "hardtanh": lambda x, w: F.hardtanh(x),
    "hardsigmoid": lambda x, w: F.hardsigmoid(x),
    "hardswish": lambda x, w: F.hardswish(x),
    "hardshrink": lambda x, w: F.hardshrink(x),
    "softshrink": lambda x, w: F.softshrink(x),
    "softsign": lambda x, w: F.softsign(x),
    "threshold": lambda x, w: F.threshold(x, 0.1, 0.2),
    "elu": lambda x, w: F.elu(x),
    "celu": lambda x, w: F.celu(x),
    "selu": lambda x, w: F.selu(x),
    "gelu": lambda x, w: F.gelu(x),
    "gelu, tanh": lambda x, w: F.gelu(x, approximate="tanh"),
    "tanh": lambda x, w: x.tanh(),
    "sigmoid": lambda x, w: x.sigmoid(),
    "silu": lambda x, w: F.silu(x),
    "mish": lambda x, w: F.mish(x),
    "softplus": lambda x, w: F.softplus(x),
    "logsigmoid": lambda x, w: F.logsigmoid(x),
    "softmax": lambda x, w: x.softmax(1),
    "log_softmax": lambda x, w: x.log_softmax(1),
    "logsumexp": lambda x, w: x.logsumexp(1),
    "glu": lambda x, w: F.glu(x),
    "layer_norm": lambda x, w: F.layer_norm(x, (WIDTH,), w[0], w[1]),
    "layer_norm without weights": lambda x, w: F.layer_norm(x, (WIDTH,)),
    "rms_norm": lambda x, w: F.rms_norm(x, (WIDTH,), w[0]),
    "group_norm": lambda x, w: F.group_norm(x, 4, w[0], w[1]),
    "normalize": lambda x, w: F.normalize(x),
    "cosine_similarity": lambda x, w: F.cosine_similarity(x, x.flip(1)),
    "conv1d": lambda x, w: F.conv1d(x[:, None], w[:2, None, :3]),
    "smooth_l1": lambda x, w: F.smooth_l1_loss(x[:, :1], x[:, 1:2].detach()),
    **{
        f"loss {name}": lambda x, w, loss=loss: loss(x[:, :1] * 2, x[:, 1:2].detach())
        for name, loss in LOSSES.items()
    },
    "quantile loss": lambda x, w: torch.maximum(0.9 * x, (0.9 - 1) * x).mean(),
    "optimizer sgd": lambda x, w: optimized(x, w, optimizer="sgd", momentum=0.9, weight_decay=0.1),
    "optimizer adam": lambda x, w: optimized(x, w, optimizer="adam", weight_decay=0.1),
    "optimizer lbfgs": lambda x, w: optimized(x, w, optimizer="lbfgs", lr=1.0),
}


def optimized(inputs: Tensor, weights: Tensor, **changes: object) -> Tensor:
    """The weights after five steps."""
    parameter = nn.Parameter(weights.detach().clone())
    optimizer = build_optimizer(load_params().train.model_copy(update=changes), [parameter])

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.mse_loss(F.relu(inputs.detach() @ parameter) / 64, inputs.detach())
        loss.backward()
        return loss.item()

    for _ in range(5):
        optimizer.step(closure)
    return inputs[0] * parameter


def digest(name: str, dtype: torch.dtype) -> tuple[list[str], str]:
    """The operations of a program, and the hash of its outputs and gradients."""
    found, names = hashlib.sha256(), set()
    for num_rows in (1, 5, 4099):
        generator = np.random.default_rng(0)  # integers and quotients alone: the same on every CPU
        rows = generator.integers(-(2**20), 2**20, (num_rows + WIDTH, WIDTH)) / 2.0**18
        inputs = torch.tensor(rows[:num_rows], dtype=dtype, requires_grad=True)
        weights = torch.tensor(rows[num_rows:] / 4, dtype=dtype, requires_grad=True)
        with Operations() as operations:
            result = PROGRAMS[name](inputs, weights)
            upstream = torch.tensor(np.resize(rows + 5, result.shape), dtype=dtype)
            gradients = torch.autograd.grad(
                result, [inputs, weights], upstream, materialize_grads=True, allow_unused=True
            )
        names |= operations.names
        for tensor in (result, *gradients):
            found.update(tensor.detach().numpy().tobytes())
    return sorted(names), found.hexdigest()


def main() -> None:
    set_numerics("portable")
    for name in PROGRAMS:
        digests = []
        for dtype in (torch.float32, torch.float64):
            names, value = digest(name, dtype)
            digests.append(value)
        print(json.dumps([name, names, digests]), flush=True)


if __name__ == "__main__":
    main()

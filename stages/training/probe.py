"""Try a network on a few numbers before it is trained: does it keep what training promises?"""

from typing import Any

import torch
import torch._dynamo  # optimizers need it; it loads faster here, before garbage is collected
from torch import Tensor, nn, optim
from torch.utils._python_dispatch import TorchDispatchMode

from stages.base.errors import UserError
from stages.base.files import PARAMS
from stages.base.params import TrainParams
from stages.model.model import Model
from stages.network import LOSSES, build_optimizer, set_learning_rate

FILE = "stages/network.py"
CURE = "Change that; docs/extending.md says why, and what to use."
# Operations whose values and gradients have the same bits on every x86-64 CPU. They add, multiply,
# divide, compare or copy; tests/slow/test_other_cpus.py tries each of them on emulated CPUs.
PORTABLE = {
    *("_foreach_add", "_fused_adamw", "_local_scalar_dense", "_prelu_kernel"),
    *("_record_function_enter_new", "_record_function_exit", "_to_copy", "_trilinear"),
    *("_unsafe_view", "abs", "add", "addmm", "amax", "amin", "bmm", "cat", "clamp", "clamp_min"),
    *("clone", "constant_pad_nd", "copy", "cumsum", "detach", "div", "dot", "embedding"),
    *("embedding_dense", "empty_like", "eq", "expand", "flip", "ge", "gt", "hardshrink"),
    *("hardsigmoid", "hardswish", "hardtanh", "huber_loss", "index", "index_add", "index_put"),
    *("index_select", "le", "leaky_relu", "lift_fresh", "logical_and", "lt", "masked_fill"),
    *("max", "maximum", "mean", "minimum", "mm", "mse_loss", "mul", "native_group_norm"),
    *("native_layer_norm", "neg", "new_zeros", "ones_like", "permute", "pow 1", "pow 2", "pow 3"),
    *("reciprocal", "relu", "rsqrt", "rsub", "scalar_tensor", "scatter", "select", "sgn", "sign"),
    *("slice", "smooth_l1_loss", "softshrink", "split", "squeeze", "stack", "std", "sub", "sum"),
    *("t", "threshold", "transpose", "unsqueeze", "var", "view", "where", "zeros", "zeros_like"),
}


class Operations(TorchDispatchMode):
    """Note the names of all operations inside the ``with`` block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__.removesuffix("_").removesuffix("_backward")
        has_exponent = name == "pow" and not isinstance(args[1], Tensor)
        self.names.add(f"pow {args[1]:g}" if has_exponent else name)
        return func(*args, **(kwargs or {}))


def try_network(model: Model) -> list[str]:
    """Build the network twice; take two steps with one, and predict in pieces with the other.

    Returns:
        What makes that the bits may depend on the kind of CPU, such as the names of operations.

    Raises:
        UserError: If there is no such loss, or it is not a mean over rows; if the learning rate
            depends on more than the epoch; if the network cannot be computed block by block, at any
            time and by any thread, or if a file of weights does not hold all of it.
    """
    params = model.params.model_copy(update={"lr": 1e-3})
    if params.loss not in LOSSES:
        known = ", ".join(LOSSES)
        raise UserError(f"{PARAMS}: `train.loss` must be one of {known}. Got {params.loss}.")
    network, fresh = (
        Model(model.features, model.target, params, model.dtype).network for _ in range(2)
    )
    optimizer = build_optimizer(params, [*network.parameters()])
    _require_pure_rate(params, optimizer)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(64, len(model.features) + 1, generator=generator, dtype=model.dtype)
    inputs, targets = rows[:, :-1].clone(), rows[:, -1:]
    buffers, random_state = [b.clone() for b in network.train().buffers()], torch.get_rng_state()

    def closure() -> float:
        optimizer.zero_grad()
        loss = LOSSES[params.loss](network(inputs), targets)
        loss.backward()
        return loss.item()

    given, wanted = [f"{tuple(t.shape)} of {t.dtype}" for t in (network(inputs), targets)]
    if given != wanted:
        raise UserError(f"{FILE}: the network returns {given} for 64 rows. Return {wanted}.")
    with Operations() as operations:
        for _ in range(2):
            optimizer.step(closure)
    fresh.eval().load_state_dict(network.state_dict())
    with torch.inference_mode():
        pieces = [fresh(piece) for piece in inputs.split(16)[::-1]][::-1]
    memory = _memory(network)
    network(inputs[:16])
    is_changed = memory != _memory(network) or not all(map(torch.equal, buffers, network.buffers()))
    predictions, again, in_eval = network(inputs), network(inputs), network.eval()(inputs)
    rounding = 100 * torch.finfo(model.dtype).eps
    difference = (torch.cat(pieces) - predictions).abs().max() / predictions.abs().max()
    is_another = not (torch.equal(predictions, again) and torch.equal(predictions, in_eval))
    unused = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    faults = {
        "draws random numbers, as Dropout does": (
            not torch.equal(random_state, torch.get_rng_state())
        ),
        "changes its inputs": not torch.equal(inputs, rows[:, :-1]),
        "changes itself as it predicts, as BatchNorm does": is_changed,
        f"has parameters without a gradient, such as {''.join(unused[:1])}": unused,
        "predicts other values if it is called or built again, in `eval()`, or beside other rows": (
            is_another or difference > rounding
        ),
    }
    for fault, is_found in faults.items():
        if is_found:
            raise UserError(f"{FILE}: the network {fault}. {CURE}")
    _require_mean_loss(params.loss, predictions, targets, rounding)
    is_native = params.numerics == "native"
    return ["native numerics"] * is_native + sorted(operations.names - PORTABLE)


def _require_pure_rate(params: TrainParams, optimizer: optim.Optimizer) -> None:
    rates = []
    for _ in range(2):
        set_learning_rate(optimizer, params, 0)
        rates.append([group["lr"] for group in optimizer.param_groups])
    if rates[0] != rates[1]:
        raise UserError(
            f"{FILE}: a second call of `set_learning_rate` for the same epoch gives another rate."
            " Compute it from `params` and `epoch` alone."
        )


def _require_mean_loss(name: str, predictions: Tensor, targets: Tensor, rounding: float) -> None:
    loss = LOSSES[name]
    mean, again = (loss(predictions, targets) for _ in range(2))
    parts = zip(predictions.split(16), targets.split(16), strict=True)
    mean_of_parts = torch.stack([loss(*part) for part in parts]).mean()
    if not torch.equal(mean, again) or (mean - mean_of_parts).abs() > rounding * mean.abs():
        raise UserError(
            f"{FILE}: the loss {name} is not the mean of the losses of the rows. {CURE}"
        )


def _memory(network: nn.Module) -> list[str]:
    """What the modules hold, apart from parameters, buffers and other modules."""
    values = [value for module in network.modules() for value in vars(module).items()]
    return [repr(value) for name, value in values if name not in {*vars(nn.Module())}]

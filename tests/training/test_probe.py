"""Which networks are refused before they are trained, and which are not."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from stages.base.errors import UserError
from stages.model import model as module
from stages.model.model import Model
from stages.network import build_network
from stages.training import probe
from stages.training.probe import try_network
from tests.conftest import train_params


@pytest.fixture
def tried(monkeypatch):
    """Try the network that a function builds from the number of inputs."""

    def run(build, dtype=torch.float32, **changes):
        monkeypatch.setattr(module, "build_network", lambda num_inputs, _params: build(num_inputs))
        return try_network(Model(["a", "b", "c"], "t", train_params(**changes), dtype))

    return run


@pytest.fixture
def refusal(tried):
    def sentence(build):
        with pytest.raises(UserError) as error:
            tried(build)
        assert str(error.value).startswith("stages/network.py: the network ")
        assert "\n" not in str(error.value)
        return str(error.value)

    return sentence


class Computed(nn.Module):
    """A linear layer, and what a function makes of its inputs, or of it and its outputs."""

    def __init__(self, num_inputs, before=None, after=None):
        super().__init__()
        self.layer = nn.Linear(num_inputs, 1)
        self.before, self.after, self.memory, self.last = before, after, [], None

    def forward(self, inputs):
        inputs = self.before(inputs) if self.before else inputs
        outputs = self.layer(inputs)
        return self.after(self, outputs) if self.after else outputs


def before(function):
    return lambda num_inputs: Computed(num_inputs, before=function)


def after(function):
    return lambda num_inputs: Computed(num_inputs, after=function)


class Unused(Computed):
    def __init__(self, num_inputs):
        super().__init__(num_inputs)
        self.spare = nn.Linear(2, 2)


class Frozen(Computed):
    def __init__(self, num_inputs):
        super().__init__(num_inputs)
        self.layer.weight.requires_grad = False


class NoParameter(Computed):
    """Its weights are neither parameters nor buffers, so that no file holds them."""

    def __init__(self, num_inputs):
        super().__init__(1)
        self.weight = torch.randn(num_inputs, 1)

    def forward(self, inputs):
        return self.layer(inputs @ self.weight)


class ZeroAtFirst(Computed):
    """At first it predicts 0 for every row, also where it mixes rows."""

    def __init__(self, num_inputs):
        super().__init__(num_inputs, before=lambda inputs: inputs - inputs.mean(0))
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)


def remember(network, outputs):
    network.last = outputs
    return outputs


def count(network, outputs):
    network.memory.append(1)
    return outputs * len(network.memory)


def scale_by_the_first(network, outputs):
    network.memory.append(outputs.detach().std())
    return outputs / network.memory[0]


def cache(network, outputs):
    network.memory[:] = [outputs]
    return network.memory[0]


OWN, COUNTER = torch.Generator(), itertools.count()
RANDOM = "draws random numbers, as Dropout does"
ITSELF = "changes itself as it predicts, as BatchNorm does"
OTHERWISE = (
    "predicts other values if it is called or built again, in `eval()`, or beside other rows"
)
REFUSED = {
    "dropout": (lambda n: nn.Sequential(nn.Dropout(), nn.Linear(n, 1)), RANDOM),
    "noise in eval": (
        after(lambda net, y: y if net.training else y + torch.randn(1)),
        RANDOM,
    ),
    "batch norm": (lambda n: nn.Sequential(nn.Linear(n, 1), nn.BatchNorm1d(1)), ITSELF),
    "spectral norm": (lambda n: nn.utils.parametrizations.spectral_norm(nn.Linear(n, 1)), ITSELF),
    "a memory": (after(remember), ITSELF),
    "batch norm without statistics": (
        lambda n: nn.Sequential(nn.Linear(n, 1), nn.BatchNorm1d(1, track_running_stats=False)),
        OTHERWISE,
    ),
    "mean of rows": (before(lambda x: x - x.mean(0)), OTHERWISE),
    "sorted rows": (before(lambda x: x.sort(dim=0).values), OTHERWISE),
    "the row before": (before(lambda x: x + x.roll(1, 0)), OTHERWISE),
    "attention to rows": (before(lambda x: (x @ x.T).softmax(1) @ x), OTHERWISE),
    "the number of rows": (before(lambda x: x * 2 if len(x) > 30 else x), OTHERWISE),
    "zero at first": (ZeroAtFirst, OTHERWISE),
    "counts in a list": (after(count), ITSELF),
    "scales by its first rows": (after(scale_by_the_first), ITSELF),
    "a cache in a list": (after(cache), ITSELF),
    "little noise of its own": (
        after(lambda _, y: y + 1e-4 * torch.randn(y.shape, generator=OWN)),
        OTHERWISE,
    ),
    "counts outside": (after(lambda _, y: y * (1 + 1e-4 * next(COUNTER))), OTHERWISE),
    "little other in eval": (after(lambda net, y: y if net.training else y * 1.0001), OTHERWISE),
    "numpy's noise": (after(lambda _, y: y + np.random.normal()), OTHERWISE),  # noqa: NPY002
    "Python's noise": (after(lambda _, y: y + random.random()), OTHERWISE),  # noqa: S311
    "other in eval": (after(lambda net, y: y if net.training else y * 1.01), OTHERWISE),
    "other without gradients": (
        after(lambda _, y: y if torch.is_grad_enabled() else y * 1.01),
        OTHERWISE,
    ),
    "weights in no file": (NoParameter, OTHERWISE),
    "changed inputs": (before(lambda x: x.mul_(2)), "changes its inputs"),
    "no column": (after(lambda _, y: y[:, 0]), "returns (64,) of torch.float32 for 64 rows"),
    "two columns": (lambda n: nn.Linear(n, 2), "returns (64, 2) of torch.float32 for 64 rows"),
    "other type": (after(lambda _, y: y.double()), "returns (64, 1) of torch.float64 for 64 rows"),
    "unused": (Unused, "parameters without a gradient, such as spare.weight"),
    "frozen": (
        Frozen,
        "without a gradient, such as layer.weight",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_breaks_the_promise_is_refused_in_one_sentence(refusal, name):
    build, words = REFUSED[name]
    assert words in refusal(build)


class Shared(Computed):
    """One layer, used twice and known by two names."""

    def __init__(self, num_inputs):
        super().__init__(num_inputs)
        self.first = self.second = nn.Linear(num_inputs, num_inputs)

    def forward(self, inputs):
        return self.layer(self.second(self.first(inputs)))


class Fourier(Computed):
    """Random features in a buffer."""

    def __init__(self, num_inputs):
        super().__init__(8)
        self.frequencies = nn.Buffer(torch.randn(num_inputs, 8))

    def forward(self, inputs):
        return self.layer((inputs @ self.frequencies).cos())


class Constant(Computed):
    """Numbers that every new network has, outside its file."""

    def __init__(self, num_inputs):
        super().__init__(num_inputs)
        self.scales = torch.linspace(0.5, 1, num_inputs).tolist()
        self.register_buffer("shift", torch.ones(num_inputs), persistent=False)

    def forward(self, inputs):
        return self.layer((inputs + self.shift) * torch.tensor(self.scales, dtype=inputs.dtype))


class Sequence(Computed):
    """An LSTM over the features."""

    def __init__(self, _num_inputs):
        super().__init__(4)
        self.lstm = nn.LSTM(1, 4, batch_first=True)

    def forward(self, inputs):
        return self.layer(self.lstm(inputs[:, :, None])[0][:, -1])


ACCEPTED = {
    "linear": lambda n: nn.Linear(n, 1),
    "norm and softsign": lambda n: nn.Sequential(nn.LayerNorm(n), nn.Softsign(), nn.Linear(n, 1)),
    "weight norm": lambda n: nn.utils.parametrizations.weight_norm(nn.Linear(n, 1)),
    "shared": Shared,
    "random features": Fourier,
    "constants": Constant,
    "lstm": Sequence,
}
NOT_PORTABLE = {"random features", "weight norm", "lstm"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ACCEPTED)
def test_other_networks_are_accepted_and_are_saved_and_loaded(tried, tmp_path, name, dtype):
    assert (tried(ACCEPTED[name], dtype) == []) == (name not in NOT_PORTABLE)
    model = Model(["a", "b", "c"], "t", train_params(), dtype)
    path = tmp_path / "model.safetensors"
    path.write_bytes(model.to_bytes(torch.device("cpu"), []))
    inputs = torch.randn(5, 3, dtype=dtype)
    assert torch.equal(Model.load(path)(inputs), model(inputs))


LOSS = "stages/network.py: the loss own is not the mean of the losses of the rows. "


@pytest.mark.parametrize(
    "loss",
    [
        lambda predictions, targets: ((predictions - targets) ** 2).sum() * 1e-4,
        lambda predictions, targets: ((predictions - targets) ** 2).mean().sqrt(),
        lambda predictions, targets: (predictions - targets).abs().mean() + random.random(),  # noqa: S311
    ],
    ids=["sum", "root", "noise"],
)
def test_a_loss_that_is_not_a_mean_over_rows_is_refused(monkeypatch, loss):
    monkeypatch.setitem(probe.LOSSES, "own", loss)
    with pytest.raises(UserError) as error:
        try_network(Model(["a"], "t", train_params(loss="own"), torch.float32))
    assert str(error.value).startswith(LOSS)


def test_a_learning_rate_that_depends_on_the_last_one_is_refused(monkeypatch):
    def shrink(optimizer, _params, _epoch):
        for group in optimizer.param_groups:
            group["lr"] *= 0.99

    monkeypatch.setattr(probe, "set_learning_rate", shrink)
    with pytest.raises(UserError) as error:
        try_network(Model(["a"], "t", train_params(), torch.float32))
    assert str(error.value) == (
        "stages/network.py: a second call of `set_learning_rate` for the same epoch gives another"
        " rate. Compute it from `params` and `epoch` alone."
    )


def test_native_numerics_are_named_as_not_portable():
    model = Model(["a"], "t", train_params(numerics="native"), torch.float32)
    assert try_network(model) == ["native numerics"]


def test_a_loss_that_the_networks_file_does_not_have_is_refused():
    with pytest.raises(UserError) as error:
        try_network(Model(["a"], "t", train_params(loss="mes"), torch.float32))
    assert str(error.value) == "params.yaml: `train.loss` must be one of mse, mae, huber. Got mes."


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
        {"optimizer": "adam", "weight_decay": 0.1},
        {"optimizer": "lbfgs", "lr": 1.0},
        {"lr": 1e6},
    ],
)
def test_what_this_project_ships_is_portable(loss, changes):
    params = train_params(hidden=[4], loss=loss, **changes)
    assert try_network(Model(["a"], "t", params, torch.float32)) == []


@pytest.mark.parametrize(
    ("layer", "operations"),
    [
        (nn.GELU, ["gelu"]),
        (nn.Tanh, ["tanh"]),
        (nn.Sigmoid, ["sigmoid"]),
        (nn.SiLU, ["silu"]),
        (nn.Hardswish, []),
        (nn.LeakyReLU, []),
        (nn.PReLU, []),
    ],
)
def test_operations_whose_bits_depend_on_the_cpu_are_named(tried, layer, operations):
    assert tried(lambda n: nn.Sequential(nn.Linear(n, 1), layer())) == operations


def test_trying_a_network_does_not_change_it():
    torch.manual_seed(0)
    model = Model(["a"], "t", train_params(hidden=[4]), torch.float32)
    before = [parameter.clone() for parameter in model.parameters()]
    try_network(model)
    assert all(map(torch.equal, before, model.parameters()))
    assert model.network.training
    assert build_network(1, model.params)[0].weight.dtype == torch.float32

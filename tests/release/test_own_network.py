"""A network of one's own is released only if its programs predict what was scored."""

import json
import re
import time

import onnx
import pytest
import torch
from torch import nn

from stages import evaluate, prepare, save, train
from stages.base.errors import UserError
from stages.base.files import EVALUATION, RELEASE
from stages.base.portable import ReLU
from stages.model import model as module
from stages.model.signature import read_signature
from stages.release.export import export
from stages.release.release import open_release

CALLS = []  # of all networks of this file


class Computed(nn.Module):
    """A small network, and what a function makes of its inputs and outputs."""

    def __init__(self, num_inputs, function):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_inputs, 4), nn.ReLU(), nn.Linear(4, 1))
        self.function = function

    def forward(self, inputs):
        CALLS.append(1)
        return self.function(self, inputs, self.layers(inputs))


@pytest.fixture
def released(change, monkeypatch):
    """Run the four stages with a network; return the release."""

    def run(build, **changes):
        CALLS.clear()
        monkeypatch.setattr(module, "build_network", lambda num_inputs, _params: build(num_inputs))
        change({"train.epochs": 3, "train.lr": 0.01} | changes)
        for stage in (prepare, train, evaluate, save):
            stage.main()
        return open_release(RELEASE)

    return run


@pytest.fixture
def refusal(released):
    def sentence(function, **changes):
        with pytest.raises(UserError) as error:
            released(lambda num_inputs: Computed(num_inputs, function), **changes)
        assert "\n" not in str(error.value)
        assert not RELEASE.exists()
        return str(error.value)

    return sentence


class Attention(nn.Module):
    """Attention between the features of a row."""

    def __init__(self, _num_inputs):
        super().__init__()
        self.token, self.last = nn.Linear(1, 8), nn.Linear(8, 1)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, inputs):
        return self.last(self.attention(self.token(inputs[:, :, None])).mean(1))


RELEASABLE = {
    "GELU": lambda n: nn.Sequential(nn.LayerNorm(n), nn.Linear(n, 8), nn.GELU(), nn.Linear(8, 1)),
    "weight norm": lambda n: nn.utils.parametrizations.weight_norm(nn.Linear(n, 1)),
    "without bias": lambda n: nn.Sequential(
        nn.Linear(n, 4), nn.ReLU(), nn.Linear(4, 1, bias=False)
    ),
    "this project's ReLU": lambda n: nn.Sequential(
        nn.Linear(n, 8), ReLU(), nn.Identity(), nn.Linear(8, 1)
    ),
    "attention": Attention,
    "a mask": lambda n: Computed(n, lambda net, x, y: torch.where(x[:, :1] > 0, y, -y)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RELEASABLE)
def test_other_networks_are_released_and_in_float64_perhaps_without_onnx(
    released, capsys, name, dtype
):
    changes = {"prepare.dtype": dtype, "prepare.rows": 300}
    try:
        release = released(RELEASABLE[name], **changes)
    except UserError as error:
        if dtype == "float32" or not str(error).startswith("save: ONNX cannot do this network: "):
            raise
        release = released(RELEASABLE[name], **changes, **{"save.onnx": False})
    assert release.manifest.architecture["widths"] is None
    assert release.manifest.proof["programs"][0] == "pytorch"
    assert "learned" not in json.loads(EVALUATION.read_text())
    assert "save: PyTorch in pieces and PyTorch predict the same" in capsys.readouterr().out
    text = (RELEASE / "README.md").read_text()
    assert "a new PyTorch process predicted what PyTorch had predicted" in text
    not_portable = release.manifest.not_portable
    assert ("repeat only on the same kind of CPU, because it uses" in " ".join(text.split())) == (
        not_portable != []
    )


def test_the_exported_bytes_are_the_same_each_time_and_tell_nothing_of_this_machine(released):
    released(RELEASABLE["GELU"])
    path = RELEASE / "model.safetensors"
    content = export(path)
    assert content == (RELEASE / "model.onnx").read_bytes()
    for text in (b".py", b"File", b"forward", b"+cpu"):
        assert text not in content
    proto = onnx.load_model_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    [entry] = proto.metadata_props
    assert read_signature(path).to_metadata() == {entry.key: entry.value}


OTHER = "predicts? (different|other) values|holds another network"  # or even before the proof
FOOLING = {
    "many rows": (lambda net, x, y: y - y.mean(0) if len(x) > 64 else y, OTHER),
    "one row": (lambda net, x, y: y * 2 if len(x) == 1 else y, OTHER),
    "an odd number of rows": (lambda net, x, y: y * (1 + len(x) % 2), OTHER),
    "the clock": (lambda net, x, y: y + 1e-3 * (time.perf_counter_ns() % 2), OTHER),
    "later calls": (lambda net, x, y: y * 2 if len(CALLS) % 40 > 20 else y, OTHER),
    "alternate calls": (lambda net, x, y: y * (1 + 1e-3 * (len(CALLS) % 2)), OTHER),
    "an export": (
        lambda net, x, y: y * 2 if torch.jit.is_tracing() else y,
        "save: ONNX Runtime and PyTorch predict different values",
    ),
    "no operation of ONNX": (
        lambda net, x, y: torch.special.i0(y),
        "save: ONNX cannot do this network: ",
    ),
    "a number of rows in the graph": (
        lambda net, x, y: y.reshape(int(x.shape[0]), 1) + torch.zeros(int(x.shape[0]), 1),
        "Set `save.onnx` to false.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOOLING)
def test_a_network_that_computes_something_else_elsewhere_is_not_released(refusal, name):
    function, words = FOOLING[name]
    assert re.search(words, refusal(function, **{"save.onnx": words != OTHER}))


def test_weights_of_another_network_are_refused_by_every_verb(released, monkeypatch):
    released(RELEASABLE["GELU"], **{"save.onnx": False})
    others = [
        RELEASABLE["attention"],  # other names
        lambda n: nn.Sequential(nn.LayerNorm(n), nn.Linear(n, 9), nn.GELU(), nn.Linear(9, 1)),
        lambda n: nn.Sequential(nn.LayerNorm(n), nn.Linear(n, 8), nn.ReLU(), nn.Linear(8, 1)),
    ]
    for build in others:
        monkeypatch.setattr(module, "build_network", lambda n, _params, build=build: build(n))
        for verb in (evaluate.main, save.main, lambda: open_release(RELEASE)):
            with pytest.raises(UserError, match="holds another network "):
                verb()

"""The bound of the proof: right programs are within it, and wrong programs are not."""

import sys

import numpy as np
import pytest
import torch

from stages import save
from stages.base.errors import UserError
from stages.model.model import Model
from stages.model.signature import read_signature
from stages.release import proof
from stages.release.card import predict, read_weights
from stages.release.export import export
from stages.release.proof import tolerance
from tests.conftest import ROOT, command, train_params

CPU = torch.device("cpu")
NETWORKS = [[], [8], [64, 64], [16] * 10, [128] * 6, [4096], [1024] * 4]


def random_model(num_features, hidden, dtype, mean, scale):
    """A network whose weights are about as large as after training, and its 200 rows."""
    torch.manual_seed(len(hidden))
    model = Model([f"f{i}" for i in range(num_features)], "t", train_params(hidden=hidden), dtype)
    model.input_mean.copy_(torch.randn(num_features) * 100)
    model.input_scale.copy_(torch.rand(num_features) + 0.1)
    model.target_mean.fill_(mean)
    model.target_scale.fill_(scale)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.7)
        z_scores = torch.randn(200, num_features, dtype=dtype)
        inputs = z_scores * model.input_scale + model.input_mean
    return model, inputs


def weights_of(model):
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


class Block:
    """A split, or predictions, of one block."""

    num_blocks = 1

    def __init__(self, rows):
        self._rows = rows

    def read(self, _block):
        return self._rows


def without_layer(weights, inputs):
    """Predict without the last hidden layer, or without ReLU if there is only one."""
    values = (inputs - weights["input_mean"]) / weights["input_scale"]
    names = [name for name in weights if name.endswith("weight")]
    names.sort(key=lambda name: int(name.split(".")[1]))
    for name in [*names[:-2], *names[-1:]] if len(names) > 2 else names:
        values = values @ weights[name].T + weights[name.replace("weight", "bias")]
        values = np.maximum(values, 0) if len(names) > 2 and name != names[-1] else values
    return values * weights["target_scale"] + weights["target_mean"]


@pytest.mark.parametrize(
    ("num_features", "mean", "scale"), [(1, 3, 2), (30, 100, 1), (7, 0, 1e-36), (2, 0, 1e36)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden", NETWORKS, ids=map(str, NETWORKS))
def test_right_programs_are_within_the_bound_and_wrong_ones_are_not(
    tmp_path, monkeypatch, hidden, num_features, dtype, mean, scale
):
    model, inputs = random_model(num_features, hidden, dtype, mean, scale)
    weights, rows = weights_of(model), inputs.numpy()
    with torch.inference_mode():
        expected = model(inputs).numpy()
    path = tmp_path / "model.safetensors"
    path.write_bytes(model.to_bytes(CPU, []))
    (tmp_path / "model.onnx").write_bytes(export(path))
    split, predictions = Block(np.hstack([rows, expected])), Block(expected)
    differences = proof.prove(tmp_path, split, predictions)
    assert max(differences.values()) < tolerance(read_signature(path)) / 8
    other = weights | {"network.0.weight": weights["network.0.weight"] * 1.01}
    wrong = [
        lambda _weights, inputs: np.zeros_like(inputs[:, :1]),
        lambda _weights, inputs: 2 * expected.mean() - predict(weights, inputs),
        lambda _weights, inputs: predict(other, inputs),
    ]
    if hidden:
        wrong.append(without_layer)
    for program in wrong:
        monkeypatch.setattr(proof, "predict", program)
        with pytest.raises(UserError, match="save: NumPy and PyTorch predict different values"):
            proof.prove(tmp_path, split, predictions)


def test_nan_in_place_of_a_number_is_refused(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr(proof, "predict", lambda _weights, inputs: inputs[:, :1] * np.nan)
    with pytest.raises(UserError, match="save: NumPy and PyTorch predict different values"):
        save.main()


def test_numpy_reads_what_safetensors_writes(project):
    path = project / "models/release/model.safetensors"
    weights = read_weights(path)
    for name, tensor in Model.load(path).state_dict().items():
        assert weights[name].tobytes() == tensor.numpy().tobytes()
        assert weights[name].shape == tensor.shape


def test_onnx_runtime_writes_no_file(project, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "import sys; from pathlib import Path; from stages.release.proof import start_session;"
        "start_session(Path('models/release/model.onnx').read_bytes());"
        "print('onnxruntime' in sys.modules)"
    )
    folders = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    result = command(project, sys.executable, "-c", program, environment=folders)
    assert result.stdout == "True\n", result.stderr
    assert list(home.iterdir()) == []

"""The bound of the proof: right programs are within it, and wrong programs are not."""

import sys

import numpy as np
import pytest
import torch

from stages import save
from stages.base.errors import UserError
from stages.model.model import Model
from stages.release import proof
from stages.release.export import export
from stages.release.proof import DENSE_ROUNDINGS, magnitudes, start_session
from stages.release.reference import predict, read_weights
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


def difference(predicted, expected, scale):
    """The largest difference, relative to the tolerance."""
    ratio = np.abs(predicted.astype(np.float64) - expected) / scale
    return ratio.max() / (DENSE_ROUNDINGS * np.finfo(expected.dtype).eps)


def without_layer(weights, inputs):
    """Predict without the last hidden layer, or without ReLU if there is only one."""
    values = (inputs - weights["input_mean"]) / weights["input_scale"]
    names = [name for name in weights if name.endswith("weight")]
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
    tmp_path, hidden, num_features, dtype, mean, scale
):
    model, inputs = random_model(num_features, hidden, dtype, mean, scale)
    weights, rows = weights_of(model), inputs.numpy()
    with torch.inference_mode():
        expected = model(inputs).numpy()
    sizes = magnitudes(weights, rows)
    path = tmp_path / "model.safetensors"
    path.write_bytes(model.to_bytes(CPU, []))
    session = start_session(export(path))
    for program in (session, lambda inputs: predict(weights, inputs)):
        assert difference(program(rows), expected, sizes) < 0.5
    other = weights | {"network.0.weight": weights["network.0.weight"] * 1.01}
    wrong = [0 * expected, 2 * expected.mean() - expected, predict(other, rows)]
    if hidden:
        wrong.append(without_layer(weights, rows))
    for predicted in wrong:
        assert difference(predicted, expected, sizes) > 2


def test_the_order_of_a_sum_whose_terms_cancel_is_no_difference():
    weights = weights_of(
        Model([f"f{i}" for i in range(200)], "t", train_params(hidden=[]), torch.float32)
    )
    weights["network.0.weight"][:] = 1 / 3
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(1000, 200)).astype(np.float32) * 1e6
    inputs[:, 1::2] = -inputs[:, ::2]
    predictions = predict(weights, inputs)
    shuffled = predict(weights, np.ascontiguousarray(inputs[:, rng.permutation(200)]))
    assert not np.allclose(shuffled, predictions, rtol=1e-3)
    assert difference(shuffled, predictions, magnitudes(weights, inputs)) < 0.5


class Block:
    """A split, or predictions, of one block."""

    num_blocks, dtype = 1, "float32"

    def __init__(self, rows):
        self._rows = rows

    def read(self, _block):
        return self._rows


def test_a_difference_of_half_of_the_predictions_is_no_rounding(tmp_path, monkeypatch):
    model = Model([f"f{i}" for i in range(200)], "t", train_params(hidden=[]), torch.float32)
    torch.nn.init.constant_(model.network[0].weight, 1 / 3)
    (tmp_path / "model.safetensors").write_bytes(model.to_bytes(CPU, []))
    rows = np.random.default_rng(0).normal(size=(50, 201)).astype(np.float32) * 1e6
    rows[:, 1:200:2] = 10 * np.sign(rows[:, 1:200:2]) - rows[:, :199:2]  # terms cancel
    expected, sizes = (
        predict(weights_of(model), rows[:, :-1]),
        magnitudes(weights_of(model), rows[:, :-1]),
    )
    assert difference(0 * expected, expected, sizes) < 1
    split, predictions = Block(rows), Block(expected)
    found = proof.prove(tmp_path, split, predictions)  # of fewer rows at a time, which NumPy
    assert found["NumPy"] < 1e-6  # adds in another order
    monkeypatch.setattr(proof, "predict", lambda _weights, inputs: 0 * inputs[:, :1])
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

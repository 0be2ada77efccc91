import sys

import numpy as np
import pytest
import torch

from stages.base.errors import UserError
from stages.model.model import Model
from stages.release.export import export
from stages.release.manifest import TOLERANCE
from stages.release.proof import compare, extremes, largest_difference, magnitudes, start_session
from stages.release.reference import predict, read_weights
from tests.conftest import ROOT, command


def random_model(num_features, hidden, dtype):
    torch.manual_seed(7)
    model = Model([f"f{i}" for i in range(num_features)], "t", hidden, dtype)
    model.input_mean.copy_(torch.randn(num_features) * 100)
    model.input_scale.copy_(torch.rand(num_features) + 0.1)
    model.target_mean.fill_(3.0)
    model.target_scale.fill_(2.0)
    return model


def weights_of(model):
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def rows(num_rows, weights):
    """Rows near the means, and rows of all magnitudes: terms cancel, overflow and underflow."""
    dtype, rng = weights["input_mean"].dtype, np.random.default_rng(0)
    shape = num_rows, len(weights["input_mean"])
    near = rng.normal(size=shape) + weights["input_mean"]
    wide = np.exp(rng.uniform(-85, 85, shape)) * rng.choice([-1.0, 1.0], shape)
    return np.concatenate([near, wide]).astype(dtype)


def all_rows(weights):
    more = extremes(len(weights["input_mean"]), str(weights["input_mean"].dtype))
    return np.concatenate([rows(500, weights), more])


JOBS = [(1, []), (1, [64, 64]), (100, []), (300, [32, 32, 32])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("num_features", "hidden"), JOBS)
def test_numpy_onnx_runtime_and_pytorch_predict_the_same_from_all_numbers(
    num_features, hidden, dtype
):
    model = random_model(num_features, hidden, dtype)
    weights = weights_of(model)
    tolerance = TOLERANCE[str(dtype).removeprefix("torch.")]
    session = start_session(export(weights, model.signature("cpu", {"torch": ""})))
    with np.errstate(all="ignore"), torch.inference_mode():
        for inputs in (rows(1, weights), all_rows(weights)):
            expected = model(torch.from_numpy(inputs)).numpy()
            for predicted in (predict(weights, inputs), session(inputs)):
                assert largest_difference(weights, inputs, predicted, expected) <= tolerance


@pytest.mark.parametrize(("num_features", "hidden"), [(1, []), (3, [16]), (100, [64, 64])])
@pytest.mark.parametrize(
    ("dtype", "change"), [(torch.float32, 1 + 1e-3), (torch.float64, 1 + 1e-9)]
)
def test_a_weight_that_differs_is_noticed(num_features, hidden, dtype, change):
    weights = weights_of(random_model(num_features, hidden, dtype))
    inputs = rows(100, weights)[:100]
    other = weights | {"network.0.weight": weights["network.0.weight"] * change}
    difference = largest_difference(
        weights, inputs, predict(other, inputs).astype(inputs.dtype), predict(weights, inputs)
    )
    assert difference > TOLERANCE[str(dtype).removeprefix("torch.")]


class OneBlock:
    """A split of one block, and the predictions for it."""

    num_blocks, dtype = 1, "float32"

    def __init__(self, rows):
        self._rows = rows

    def read(self, _block):
        return self._rows


@pytest.mark.parametrize(
    "wrong",
    [lambda p: p * 0, lambda p: -p, lambda p: p + np.float32(0.1) * p.std()],
    ids=["zero", "negated", "shifted"],
)
def test_a_deep_networks_wrong_program_is_refused(wrong):
    torch.manual_seed(0)
    weights = weights_of(Model(["a", "b"], "t", [1024] * 4, torch.float32))
    for name in [name for name in weights if name.startswith("network")]:
        weights[name] = weights[name] * np.float32(1.7)  # as after training: predictions vary
    inputs = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    expected = predict(weights, inputs)
    table = np.concatenate([inputs, expected], axis=1)
    assert largest_difference(weights, inputs, wrong(expected), expected) < 1, "a loose bound"
    parts = weights, OneBlock(table), OneBlock(expected)
    assert compare("NumPy", lambda rows: predict(weights, rows), *parts) == 0.0
    with pytest.raises(UserError, match="save: NumPy and PyTorch predict values that differ by"):
        compare("NumPy", lambda rows: wrong(predict(weights, rows)), *parts)


def test_the_order_of_a_sum_whose_terms_cancel_is_no_difference():
    weights = weights_of(Model([f"f{i}" for i in range(200)], "t", [], torch.float32))
    weights["network.0.weight"][:] = 1 / 3
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(1000, 200)).astype(np.float32) * 1e6
    inputs[:, 1::2] = -inputs[:, ::2]
    predictions = predict(weights, inputs)
    shuffled = predict(weights, np.ascontiguousarray(inputs[:, rng.permutation(200)]))
    assert not np.allclose(shuffled, predictions, rtol=1e-3)
    assert largest_difference(weights, inputs, shuffled, predictions) < TOLERANCE["float32"]


@pytest.mark.parametrize("prediction", [np.inf, -np.inf, np.nan, 3.0])
def test_where_an_intermediate_number_may_overflow_any_prediction_is_accepted(prediction):
    weights = weights_of(random_model(2, [], torch.float32))
    weights["network.0.weight"][0, 1] = -weights["network.0.weight"][0, 0]
    inputs = np.full((1, 2), np.finfo(np.float32).max)
    with np.errstate(all="ignore"):
        expected = predict(weights, inputs)
        assert np.isnan(expected).all()  # infinity less infinity; fused, it would not overflow
        assert np.isinf(magnitudes(weights, inputs)).all()
        other = np.array([[prediction]], np.float32)
        assert largest_difference(weights, inputs, other, expected) == 0.0


def test_nan_in_place_of_a_number_is_noticed():
    weights = weights_of(random_model(1, [], torch.float32))
    inputs, nothing = np.zeros((1, 1), np.float32), np.array([[np.nan]], np.float32)
    assert largest_difference(weights, inputs, nothing, predict(weights, inputs)) == np.inf


def test_the_extremes_are_the_largest_the_smallest_subnormal_and_both_zeros():
    numbers = {*extremes(3, "float32").flatten().tolist()}
    limits = np.finfo(np.float32)
    for number in (limits.max, limits.tiny, limits.smallest_subnormal):
        assert {float(number), -float(number)} <= numbers
    assert "-0.0" in str(extremes(3, "float32").flatten().tolist())


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

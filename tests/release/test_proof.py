import sys

import numpy as np
import pytest
import torch

from stages.base.errors import UserError
from stages.base.files import PREPARED, WEIGHTS
from stages.model.model import Model
from stages.release.export import export
from stages.release.manifest import TOLERANCE
from stages.release.proof import extremes, largest_difference, magnitudes, prove, start_session
from stages.rows.split import Split
from tests.conftest import ROOT, command


def random_model(num_features, hidden, dtype):
    torch.manual_seed(7)
    model = Model([f"f{i}" for i in range(num_features)], "t", hidden, dtype)
    model.input_mean.copy_(torch.randn(num_features) * 100)
    model.input_scale.copy_(torch.rand(num_features) + 0.1)
    model.target_mean.fill_(3.0)
    model.target_scale.fill_(2.0)
    return model


def rows(model, num_rows):
    """Rows near the means, and rows of all magnitudes: terms cancel, overflow and underflow."""
    shape = num_rows, len(model.features)
    exponents = torch.rand(*shape, dtype=model.dtype) * 170 - 85
    signs = torch.sign(torch.randn(*shape, dtype=model.dtype))
    return torch.cat([torch.randn(*shape) + model.input_mean, exponents.exp() * signs])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("num_features", "hidden"), [(1, []), (1, [64, 64]), (100, []), (300, [32, 32, 32])]
)
def test_onnx_runtime_predicts_the_same_from_all_finite_numbers(num_features, hidden, dtype):
    model = random_model(num_features, hidden, dtype)
    session = start_session(export(model, model.signature("cpu", {"torch": ""})))
    tolerance = TOLERANCE[str(dtype).removeprefix("torch.")]
    for batch in (rows(model, 1), rows(model, 500), extremes(model)):
        assert largest_difference(model, session, [batch.to(dtype)]) <= tolerance


def session_of(model):
    return lambda inputs: model(torch.from_numpy(inputs)).numpy()


@pytest.mark.parametrize(("num_features", "hidden"), [(1, []), (3, [16]), (100, [64, 64])])
@pytest.mark.parametrize(
    ("dtype", "change"), [(torch.float32, 1 + 1e-3), (torch.float64, 1 + 1e-9)]
)
@torch.inference_mode()
def test_a_weight_that_differs_is_noticed(num_features, hidden, dtype, change):
    model, other = (random_model(num_features, hidden, dtype) for _ in range(2))
    other.network[0].weight *= change
    batch = rows(model, 100)[:100].to(dtype)
    difference = largest_difference(model, session_of(other), [batch])
    assert difference > TOLERANCE[str(dtype).removeprefix("torch.")]


@torch.inference_mode()
def test_the_order_of_a_sum_whose_terms_cancel_is_no_difference():
    model, other = (random_model(200, [], torch.float32) for _ in range(2))
    order = torch.randperm(200)
    other.network[0].weight.copy_(model.network[0].weight[:, order])
    batch = torch.randn(1000, 200) * 1e6
    batch[:, 1::2] = -batch[:, ::2]
    model.network[0].weight.fill_(1 / 3)
    other.network[0].weight.fill_(1 / 3)
    model.input_mean.zero_(), model.input_scale.fill_(1), model.target_mean.zero_()
    other.input_mean.zero_(), other.input_scale.fill_(1), other.target_mean.zero_()

    def shuffled(inputs):
        return session_of(other)(np.ascontiguousarray(inputs[:, order]))

    assert not np.allclose(shuffled(batch.numpy()), session_of(model)(batch.numpy()), rtol=1e-3)
    assert largest_difference(model, shuffled, [batch]) < TOLERANCE["float32"]


@pytest.mark.parametrize("prediction", [np.inf, -np.inf, np.nan, 3.0])
def test_where_an_intermediate_number_may_overflow_any_prediction_is_accepted(prediction):
    model = random_model(2, [], torch.float32)
    model.network[0].weight.data[0, 1] = -model.network[0].weight.data[0, 0]
    batch = torch.full((1, 2), torch.finfo(torch.float32).max)
    assert model(batch).isnan().all()  # infinity less infinity; a fused product would not overflow
    assert magnitudes(model, batch).isinf().all()
    assert largest_difference(model, lambda _: np.array([[prediction]], np.float32), [batch]) == 0.0


def test_a_model_of_a_difference_is_proved():
    model = Model(["before", "after"], "change", [], torch.float32)  # −max and max: NaN, or −∞
    model.network[0].weight.data[:] = torch.tensor([[-1.0, 1.0]])
    model.input_scale.fill_(1.2)
    session = start_session(export(model, model.signature("cpu", {"torch": "0"})))
    assert largest_difference(model, session, [extremes(model)]) <= TOLERANCE["float32"]


def test_nan_in_place_of_a_number_is_noticed():
    model = random_model(1, [], torch.float32)
    nothing = np.array([[np.nan]], np.float32)
    assert largest_difference(model, lambda _: nothing, [torch.zeros(1, 1)]) == np.inf


def test_the_extremes_are_the_largest_the_smallest_subnormal_and_both_zeros():
    model = random_model(3, [], torch.float32)
    numbers = {*extremes(model).flatten().tolist()}
    limits = np.finfo(np.float32)
    for number in (limits.max, limits.tiny, limits.smallest_subnormal):
        assert {float(number), -float(number)} <= numbers
    assert "-0.0" in str(extremes(model).flatten().tolist())


def test_the_proof_compares_bits_and_not_values(project):
    model, negative = (Model.load(project / WEIGHTS) for _ in range(2))
    for candidate, zero in [(model, 0.0), (negative, -0.0)]:
        for parameter in candidate.parameters():
            parameter.data.fill_(zero)
        candidate.target_mean.fill_(zero)
        candidate.target_scale.fill_(1.0)
    split = Split(project / PREPARED / "test.parquet")
    prove(model, model, split)
    inputs = torch.rand(3, 1)
    assert torch.equal(model(inputs), negative(inputs))
    with pytest.raises(UserError):
        prove(negative, model, split)


def test_onnx_runtime_writes_no_file(project, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    prove_release = [sys.executable, "-X", "importtime", "-m", "stages.release.proof"]
    folders = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    result = command(project, *prove_release, "models/release", environment=folders)
    assert result.returncode == 0, result.stderr
    assert " onnxruntime\n" in result.stderr
    assert list(home.iterdir()) == []

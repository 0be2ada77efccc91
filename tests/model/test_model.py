import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stages.base.errors import UserError
from stages.base.portable import ReLU
from stages.model.model import Model, formula
from stages.rows.split import Statistics
from tests.conftest import train_params

CPU = torch.device("cpu")
STATISTICS = Statistics(
    categories={},
    fill={},
    filled={},
    columns=["a", "b", "t"],
    rows={},
    mean={"a": 10.0, "b": -3.0, "t": 100.0},
    standard_deviation={"a": 2.0, "b": 0.5, "t": 8.0},
    minimum={"a": 7.0, "b": -4.0, "t": 90.0},
    maximum={"a": 13.0, "b": -2.0, "t": 110.0},
)


def model(hidden=None, dtype=torch.float64):
    torch.manual_seed(0)
    result = Model(["a", "b"], "t", train_params(hidden=hidden or []), dtype)
    result.standardize_by(STATISTICS)
    return result


@pytest.mark.parametrize("hidden", [[], [5], [7, 3]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_read_from_its_file_predicts_the_same_bits(tmp_path, hidden, dtype):
    path = tmp_path / "model.safetensors"
    path.write_bytes(model(hidden, dtype).to_bytes(CPU, []))
    inputs = torch.randn(100, 2, dtype=dtype)
    assert torch.equal(Model.load(path)(inputs), model(hidden, dtype)(inputs))


def test_the_file_has_one_metadata_key_and_the_same_bytes_every_time(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(model([4]).to_bytes(CPU, []))
    assert path.read_bytes() == model([4]).to_bytes(CPU, [])
    with safe_open(path, framework="pt") as file:
        [content] = file.metadata().values()
    signature = json.loads(content)
    assert signature["features"] == ["a", "b"]
    assert (signature["target"], signature["hidden"], signature["dtype"]) == ("t", [4], "float64")
    assert signature["trained_on"] == "cpu"
    assert signature["versions"]["torch"] == "2.13.0"


def test_a_line_is_initialised_as_pytorchs_own_linear_layer():
    torch.manual_seed(42)
    layer = torch.nn.Linear(1, 1)
    torch.manual_seed(42)
    line = Model(["x"], "y", train_params(hidden=[]), torch.float32)
    assert line.line() == [layer.bias.item(), layer.weight.item()]


def test_a_model_takes_and_returns_original_units():
    fitted = model()
    inputs = torch.tensor([[12.0, -2.0]], dtype=torch.float64)
    z_score = fitted.network(torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    assert torch.equal(fitted(inputs), z_score * 8.0 + 100.0)


def test_the_line_in_original_units_predicts_what_the_model_predicts():
    fitted = model()
    intercept, *slopes = fitted.line()
    inputs = torch.randn(50, 2, dtype=torch.float64) * 20
    predictions = inputs @ torch.tensor(slopes, dtype=torch.float64)[:, None] + intercept
    assert torch.allclose(predictions, fitted(inputs), rtol=1e-13, atol=1e-11)  # rounding only
    assert model([3]).line() == []


def test_a_constant_target_has_no_z_scores():
    deviations = {"a": 1.0, "b": 1.0, "t": 0.0}
    statistics = STATISTICS.model_copy(update={"standard_deviation": deviations})
    with pytest.raises(UserError) as error:
        Model(["a", "b"], "t", train_params(hidden=[]), torch.float32).standardize_by(statistics)
    assert str(error.value) == (
        "train: the target, `t`, is constant in the training rows. Choose another `prepare.target`,"
        " or set `train.standardize` to false."
    )


def require_refusal(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        Model.load(path)
    assert str(error.value).startswith(f"{path} is not a model of this project: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_a_model_is_refused_in_one_sentence(tmp_path):
    whole = model([4]).to_bytes(CPU, [])
    require_refusal(tmp_path, b"")
    require_refusal(tmp_path, b"not safetensors")
    require_refusal(tmp_path, whole[:-8])
    require_refusal(tmp_path, whole.replace(b'\\"dtype\\"', b'\\"dtipe\\"'))
    require_refusal(tmp_path, pickle.dumps({"weight": [1.0]}))
    path = tmp_path / "plain.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    require_refusal(tmp_path, path.read_bytes())


def test_a_missing_file_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError) as error:
        Model.load(tmp_path / "none.safetensors")
    assert str(error.value).endswith(
        "none.safetensors does not exist. Run `dvc repro`, or `python -m stages.train`."
    )


def test_a_formula_is_written_as_people_write_it():
    assert formula(["x"], "y", [-0.26232, 1.00212]) == "y = 1.002·x − 0.2623"
    assert formula(["x-1"], "y", [0.5, -2.0]) == "y = -2·x-1 + 0.5"
    assert formula(["a", "b"], "t", [1.0, 2.0, -3e-7]) == "t = 2·a − 3e-07·b + 1"
    assert formula([*"abcd"], "t", [0.0] * 5) == "a linear model from 4 features to t"
    assert model([64, 64]).describe() == "a network of 64-64 hidden units from 2 features to t"


def test_a_model_refuses_rows_of_another_width():
    with pytest.raises(ValueError, match=r"a row of inputs has 2 features: \['a', 'b'\]"):
        model()(torch.zeros(3, 1, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_relu_has_the_values_and_the_gradient_of_pytorchs_relu(dtype):
    inputs = torch.randn(100, 7, dtype=dtype)
    inputs[0] = torch.tensor([0.0, -0.0, torch.inf, 1e-45, -1e-45, 1e30, -1e30])
    gradients = []
    for function in (ReLU(), torch.nn.ReLU()):
        leaf = inputs.clone().requires_grad_()
        outputs = function(leaf)
        assert torch.equal(outputs, inputs.clamp(min=0))
        gradients.append(torch.autograd.grad(outputs, leaf, torch.ones_like(outputs))[0])
    assert torch.equal(*gradients)
    with torch.no_grad():
        assert ReLU()(torch.tensor(-torch.inf)) == 0

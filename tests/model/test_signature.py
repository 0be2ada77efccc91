import json

import pytest
import torch
from safetensors.torch import save

from stages.base.errors import UserError
from stages.model.model import Model
from stages.model.signature import METADATA, Signature, open_weights

SIGNATURE = Signature(
    features=["a", "größe"],
    target="t",
    categories={"c": ["u", "v"]},
    hidden=[3],
    dtype="float32",
    trained_on="cpu",
    versions={"torch": "2.13.0"},
)
NUMBERS = {"weight": torch.zeros(1)}
from tests.conftest import train_params


def test_a_signature_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save(NUMBERS, SIGNATURE.to_metadata()))
    for framework in ("pt", "numpy"):
        with open_weights(path, framework) as (signature, file):
            assert signature == SIGNATURE
            assert file.get_tensor("weight").tolist() == [0.0]


def test_the_text_is_sorted():
    content = json.loads(SIGNATURE.to_metadata()[METADATA])
    assert [*content] == sorted(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"features": [1, 2]},
        {"hidden": ["3"]},
        {"hidden": [0]},
        {"hidden": [10**30]},
        {"hidden": [2**16] * 4},
        {"dtype": "int8"},
        {"categories": {"c": "uv"}},
        {"more": 1},
    ],
)
def test_a_signature_with_wrong_values_is_refused_and_takes_no_memory(tmp_path, changes):
    model = Model(["a", "b"], "t", train_params(hidden=[3]), torch.float32)
    signature = model.signature("cpu", {}).model_dump() | changes
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save(model.state_dict(), {METADATA: json.dumps(signature)}))
    with pytest.raises(UserError) as error:
        Model.load(path)
    assert str(error.value).startswith(f"{path} is not a model of this project: ")
    assert str(error.value).endswith(" Train again.")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600

import json

import pytest
import torch
from safetensors.torch import save

from stages.base.errors import UserError
from stages.model.model import Model
from stages.model.signature import METADATA, Signature, read_signature
from tests.conftest import train_params

SIGNATURE = Signature(
    features=["a", "größe"],
    target="t",
    categories={"c": ["u", "v"]},
    network="a network of 3 hidden units",
    hidden=[3],
    probe=[0.5, -0.5],
    train=train_params(hidden=[3]),
    not_portable=[],
    dtype="float32",
    trained_on="cpu",
    versions={"torch": "2.13.0"},
)
TRAIN = SIGNATURE.train.model_dump()
NUMBERS = {"weight": torch.zeros(1)}


def test_a_signature_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save(NUMBERS, SIGNATURE.to_metadata()))
    assert read_signature(path) == SIGNATURE


def test_the_text_is_sorted():
    content = json.loads(SIGNATURE.to_metadata()[METADATA])
    assert [*content] == sorted(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"features": [1, 2]},
        {"hidden": ["3"]},
        {"train": {}},
        {"train": TRAIN | {"hidden": [0]}},
        {"train": TRAIN | {"hidden": [10**30]}},
        {"dtype": "int8"},
        {"categories": {"c": "uv"}},
        {"more": 1},
    ],
)
def test_a_signature_with_wrong_values_is_refused(tmp_path, changes):
    model = Model(["a", "b"], "t", train_params(hidden=[3]), torch.float32)
    signature = SIGNATURE.model_dump() | changes
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save(model.state_dict(), {METADATA: json.dumps(signature)}))
    with pytest.raises(UserError) as error:
        Model.load(path)
    assert str(error.value).startswith(f"{path} is not a model of this project: ")
    assert str(error.value).endswith(" Train again.")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600

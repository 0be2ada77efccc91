"""A changed release is refused in one sentence, and is not loaded."""

import hashlib
import json
import shutil

import pytest
import torch

from stages.base.errors import UserError
from stages.model.model import Model
from stages.release.release import open_release
from tests.conftest import train_params

CURE = ". Get the release again, or run `dvc repro --force save`."


@pytest.fixture
def folder(project, tmp_path):
    return shutil.copytree(project / "models/release", tmp_path / "release")


def edit(folder, change):
    path = folder / "model.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def list_anew(folder, name):
    """Forge the entry of a file in model.json."""
    content = (folder / name).read_bytes()
    file = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    edit(folder, lambda manifest: manifest["files"].update({name: file}))


def refusal(folder):
    with pytest.raises(UserError) as error:
        open_release(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(folder, name, why):
    return f"{folder / name} is not as it was released: {why}{CURE}"


def test_a_release_is_opened_as_it_was_written(folder):
    release = open_release(folder)
    assert release.model.features == ["x"]
    assert release.model.target == release.manifest.target.name == "y"


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    assert refusal(folder) == changed(folder, name, "it is missing")


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[::-1]], ids=["cut", "reversed"])
def test_a_truncated_or_changed_file_is_refused(folder, name, damage):
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    why = "its size or SHA-256 is not the one in model.json"
    assert refusal(folder) == changed(folder, name, why)


def test_a_model_json_of_another_form_is_refused(folder):
    path = folder / "model.json"
    for content, why in [
        (b"", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (b"[" * 10**6, "Invalid JSON: recursion limit exceeded at line 1 column 202"),
        (b'{"inputs": {}}', "'inputs' Input should be a valid array"),
    ]:
        path.write_bytes(content)
        assert refusal(folder) == changed(folder, "model.json", why)


EDITS = [
    (lambda m: m.pop("not_portable"), "'not_portable' Field required"),
    (lambda m: m.pop("scores"), "'scores' Field required"),
    (lambda m: m.update({"a\nb": 1}), "'a\\nb' Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("change", "why"), EDITS, ids=range(len(EDITS)))
def test_an_edited_model_json_is_refused(folder, change, why):
    edit(folder, change)
    assert refusal(folder) == changed(folder, "model.json", why)


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_a_file_that_is_not_listed_is_refused(folder, name):
    edit(folder, lambda manifest: manifest["files"].pop(name))
    why = "its size or SHA-256 is not the one in model.json"
    assert refusal(folder) == changed(folder, name, why)


def forge(folder, model):
    (folder / "model.safetensors").write_bytes(model.to_bytes(torch.device("cpu"), []))
    list_anew(folder, "model.safetensors")


def test_weights_of_another_network_are_refused(folder):
    wider = Model(["x"], "y", train_params(), torch.float32)
    wider.network = torch.nn.Linear(1, 1)
    forge(folder, wider)
    assert refusal(folder) == (
        f"{folder}/model.safetensors holds another network (Linear, a network of 2 parameters)"
        " than stages/network.py builds. Restore that file, or train again."
    )


def test_a_folder_without_a_release_is_refused(tmp_path):
    path = tmp_path / "none/model.json"
    assert refusal(path.parent) == f"{path} does not exist. Give the folder of a release."

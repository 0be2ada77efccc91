"""A changed release is refused in one sentence, and is not loaded."""

import hashlib
import json
import shutil

import onnx
import pytest
import torch
from onnx import helper

from stages.base.errors import UserError
from stages.model.model import Model
from stages.release.release import open_release

CURE = ". Get the release again, or run `dvc repro --force save`."
from tests.conftest import train_params


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
    assert release.manifest.signature().target == "y"


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
    (lambda m: m["inputs"][0].update(name="z"), "it does not describe model.safetensors"),
    (lambda m: m["categories"].update(x=["u"]), "it does not describe model.safetensors"),
    (lambda m: m["architecture"].update(hidden=[4]), "it does not describe model.safetensors"),
    (lambda m: m["architecture"].pop("hidden"), "'hidden' Input should be a valid list"),
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
    (folder / "model.safetensors").write_bytes(model.to_bytes(torch.device("cpu")))
    list_anew(folder, "model.safetensors")


def test_weights_of_another_model_are_refused(folder):
    forge(folder, Model(["x"], "y", train_params(hidden=[4]), torch.float32))
    assert refusal(folder) == changed(
        folder, "model.json", "it does not describe model.safetensors"
    )
    wider = Model(["x"], "y", train_params(hidden=[]), torch.float32)
    wider.network = torch.nn.Sequential(torch.nn.Linear(2, 1))
    forge(folder, wider)
    assert "size mismatch for network.0.weight" in refusal(folder)


def external(tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")


def in_initializer(proto):
    external(proto.graph.initializer[0])


def in_a_constant(proto):
    tensor = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [0.0])
    proto.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    external(proto.graph.node[-1].attribute[0].t)


def in_a_branch(proto):
    tensor = helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [0.0])
    external(tensor)
    branch = helper.make_graph([], "branch", [], [], [tensor])
    proto.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch))


@pytest.mark.parametrize("place", [in_initializer, in_a_constant, in_a_branch])
def test_onnx_that_reads_weights_from_other_files_is_refused(folder, place):
    path = folder / "model.onnx"
    proto = onnx.load(path)
    place(proto)
    path.write_bytes(proto.SerializeToString())
    list_anew(folder, "model.onnx")
    assert refusal(folder) == changed(folder, "model.onnx", "it reads weights from other files")


def test_a_folder_without_a_release_is_refused(tmp_path):
    path = tmp_path / "none/model.json"
    assert refusal(path.parent) == f"{path} does not exist. Give the folder of a release."

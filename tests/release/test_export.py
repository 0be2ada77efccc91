import numpy as np
import onnx
import pytest
import torch

from stages.model.model import Model
from stages.model.signature import Signature
from stages.release.export import OPSET, export
from stages.release.proof import start_session
from tests.conftest import train_params


def exported(model, folder):
    path = folder / "model.safetensors"
    path.write_bytes(model.to_bytes(torch.device("cpu"), []))
    return export(path)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Model(["a", 'ü"|\n'], "t", train_params(hidden=[5]), torch.float64, {"c": ["u"]})
    model.input_scale.fill_(2.0)
    return model


@pytest.fixture(scope="module")
def content(model, tmp_path_factory):
    return exported(model, tmp_path_factory.mktemp("weights"))


def test_inputs_and_predictions_are_named_and_take_any_number_of_rows(content):
    proto = onnx.load_model_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    graph = proto.graph
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"inputs": ["rows", 2], "predictions": ["rows", 1]}
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
    session = start_session(content)
    for num_rows in (0, 1, 2, 7):
        assert session(np.ones((num_rows, 2))).shape == (num_rows, 1)


def test_the_file_states_its_opset_and_what_the_model_is(content):
    proto = onnx.load_model_from_string(content)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", OPSET)]
    [entry] = proto.metadata_props
    signature = Signature.model_validate_json(entry.value)
    assert (signature.features, signature.target) == (["a", 'ü"|\n'], "t")
    assert (signature.dtype, signature.trained_on) == ("float64", "cpu")
    assert signature.versions["torch"] == "2.13.0"
    assert signature.categories == {"c": ["u"]}


def test_the_graph_has_one_operation_for_each_of_the_models(content):
    graph = onnx.load_model_from_string(content).graph
    operations = [node.op_type for node in graph.node]
    assert operations == ["Sub", "Div", "Gemm", "Relu", "Gemm", "Mul", "Add"]


def test_the_bytes_are_the_same_each_time_and_tell_nothing_of_this_machine(
    model, content, tmp_path
):
    assert exported(model, tmp_path) == content
    for text in (b"/", b".py", b"File", b"pkg.torch", b"forward", b"+cpu"):
        assert text not in content

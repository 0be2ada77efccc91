"""The model as one ONNX graph, written operation by operation: the same bytes every time."""

import json
from collections.abc import Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from stages.model.signature import Signature

OPSET = 20
IR_VERSION = 10  # what ONNX Runtime 1.17 and newer read


def export(weights: Mapping[str, NDArray[Any]], signature: Signature) -> bytes:
    """Write `inputs` (rows, features) → `predictions` (rows, 1), both in the table's own units.

    Args:
        weights: All tensors of the file of weights, by name.
        signature: What that file says of the network.
    """
    operations: list[tuple[str, list[str]]] = [("Sub", ["input_mean"]), ("Div", ["input_scale"])]
    for layer in range(0, 2 * len(signature.hidden) + 1, 2):  # at the odd numbers stands ReLU
        operations += [("Relu", [])] * (layer > 0)
        operations += [("Gemm", [f"network.{layer}.weight", f"network.{layer}.bias"])]
    operations += [("Mul", ["target_scale"]), ("Add", ["target_mean"])]
    nodes, values = [], "inputs"
    for number, (operation, operands) in enumerate(operations, start=1):
        output = "predictions" if number == len(operations) else f"values_{number - 1}"
        options: Any = {"transB": 1} if operation == "Gemm" else {}  # values · weightᵀ + bias
        nodes.append(helper.make_node(operation, [values, *operands], [output], **options))
        values = output
    kind = TensorProto.FLOAT if signature.dtype == "float32" else TensorProto.DOUBLE
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("inputs", kind, ["rows", len(signature.features)])],
        [helper.make_tensor_value_info("predictions", kind, ["rows", 1])],
        [numpy_helper.from_array(tensor, name) for name, tensor in sorted(weights.items())],
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    scale = {name: array.tolist() for name, array in weights.items() if "network" not in name}
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in sorted({**signature.model_dump(), "scale": scale}.items())
    }
    helper.set_model_props(proto, texts)
    onnx.checker.check_model(proto)
    return proto.SerializeToString(deterministic=True)

"""The model as one ONNX graph, written operation by operation: the same bytes every time."""

import json
from collections.abc import Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from stages.base.errors import UserError
from stages.model.signature import Signature

OPSET = 20
IR_VERSION = 10  # what ONNX Runtime 1.17 and newer read
MAX_BYTES = 2**31 - 2**20  # of a protobuf message, less what is not weights


def export(weights: Mapping[str, NDArray[Any]], signature: Signature) -> bytes:
    """Write `inputs` (rows, features) → `predictions` (rows, 1), both in the table's own units.

    Args:
        weights: All tensors of the file of weights, by name.
        signature: What that file says of the network.

    Raises:
        UserError: If the weights are more than one ONNX file can hold.
    """
    size_bytes = sum(tensor.nbytes for tensor in weights.values())
    if size_bytes > MAX_BYTES:
        raise UserError(
            f"save: the weights take {size_bytes} bytes, but an ONNX file holds at most 2 GiB. Set"
            " `save.onnx` to false, or lower `train.hidden`."
        )
    operations = [("Sub", "input_mean"), ("Div", "input_scale")]
    for layer in range(len(signature.hidden) + 1):
        operations += [("Relu", "")] * (layer > 0)
        operations += [("Gemm", f"network.{2 * layer}.")]  # at the odd numbers stands ReLU
    operations += [("Mul", "target_scale"), ("Add", "target_mean")]
    nodes, values = [], "inputs"
    for number, (operation, name) in enumerate(operations):
        operands = [name] if name in weights else []
        options: dict[str, Any] = {}
        if operation == "Gemm":  # values · weightᵀ + bias
            operands, options = [f"{name}weight", f"{name}bias"], {"transB": 1}
        output = "predictions" if number == len(operations) - 1 else f"values_{number}"
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

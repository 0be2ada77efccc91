"""The model as one ONNX graph, written operation by operation: the same bytes every time."""

import io
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from stages.model.signature import Signature, read_signature
from stages.release.card import read_weights
from stages.release.proof import onnx_refusals

OPSET = 20
IR_VERSION = 10  # what ONNX Runtime 1.17 and newer read


@onnx_refusals()
def export(path: Path) -> bytes:
    """Return the model in a file of weights as ONNX; PyTorch exports a network of one's own.

    It maps `inputs` (rows, features) to `predictions` (rows, 1), both in the table's own units.
    """
    signature = read_signature(path)
    proto = _traced(path) if signature.hidden is None else _written(path, signature)
    helper.set_model_props(proto, signature.to_metadata())
    return proto.SerializeToString(deterministic=True)


def _traced(path: Path) -> onnx.ModelProto:
    import torch  # noqa: PLC0415 (the network that this project ships needs no PyTorch here)

    from stages.model.device import set_numerics  # noqa: PLC0415
    from stages.model.model import Model  # noqa: PLC0415

    set_numerics("portable")
    model, buffer = Model.load(path), io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # the proof judges
        torch.onnx.export(
            model,
            (torch.zeros(2, len(model.features), dtype=model.dtype),),
            buffer,  # type: ignore[arg-type]
            input_names=["inputs"],
            output_names=["predictions"],
            dynamic_axes={"inputs": {0: "rows"}, "predictions": {0: "rows"}},
            opset_version=OPSET,
            dynamo=False,  # the new way needs one package more
        )
    return onnx.load_model_from_string(buffer.getvalue())


def _written(path: Path, signature: Signature) -> onnx.ModelProto:
    weights, hidden = read_weights(path), signature.hidden or []
    operations: list[tuple[str, list[str]]] = [("Sub", ["input_mean"]), ("Div", ["input_scale"])]
    for layer in range(0, 2 * len(hidden) + 1, 2):  # at the odd numbers stands ReLU
        operations += [("Relu", [])] * (layer > 0)
        operations += [("Gemm", [f"network.{layer}.weight", f"network.{layer}.bias"])]
    operations += [("Mul", ["target_scale"]), ("Add", ["target_mean"])]
    names = ["inputs", *(f"values_{i}" for i in range(len(operations) - 1)), "predictions"]
    nodes = []
    for (operation, operands), (values, output) in zip(operations, pairwise(names), strict=True):
        options: Any = {"transB": 1} if operation == "Gemm" else {}  # values · weightᵀ + bias
        nodes.append(helper.make_node(operation, [values, *operands], [output], **options))
    kind = TensorProto.FLOAT if signature.dtype == "float32" else TensorProto.DOUBLE
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("inputs", kind, ["rows", len(signature.features)])],
        [helper.make_tensor_value_info("predictions", kind, ["rows", 1])],
        [numpy_helper.from_array(tensor, name) for name, tensor in sorted(weights.items())],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )

"""Export the model as ONNX: the same bytes every time. `save` runs this as a process of its own."""

import json
import logging
import sys
import warnings
from pathlib import Path

import onnx
import torch

from stages.base.errors import UserError
from stages.base.files import WEIGHTS
from stages.base.process import run
from stages.model.model import Model
from stages.model.signature import Signature, open_weights
from stages.release.manifest import ONNX

OPSET = 20
MAX_BYTES = 2**31 - 2**20  # a protobuf message, less 1 MiB for all but the weights


def main() -> None:
    with open_weights(WEIGHTS, "pt") as (signature, _):
        content = export(Model.load(WEIGHTS), signature)
    (Path(sys.argv[1]) / ONNX).write_bytes(content)


def export(model: Model, signature: Signature) -> bytes:
    """Return an ONNX file: `inputs` (rows, features) → `predictions` (rows, 1), original units.

    Raises:
        UserError: If the weights are too large for an ONNX file.
    """
    size_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    if size_bytes > MAX_BYTES:
        raise UserError(
            f"save: the weights take {size_bytes} bytes, but an ONNX file holds at most 2 GiB. Set"
            " `save.onnx` to false, or lower `train.hidden`."
        )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # no hints, as to torchvision
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # from inside PyTorch
        program = torch.onnx.export(
            model.eval().requires_grad_(requires_grad=False),  # else ReLU depends on the kernels
            (torch.zeros(2, len(model.features), dtype=model.dtype),),
            input_names=["inputs"],
            output_names=["predictions"],
            dynamic_shapes={"inputs": {0: torch.export.Dim("rows")}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    graph = proto.graph
    for message in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del message.metadata_props[:]  # stack traces and names from the exporter
    proto.producer_version = signature.versions["torch"]  # without the name of the build
    scale = {name: buffer.tolist() for name, buffer in model.named_buffers()}
    properties = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in sorted({**signature.model_dump(), "scale": scale}.items())
    }
    onnx.helper.set_model_props(proto, properties)
    onnx.checker.check_model(proto)
    return proto.SerializeToString(deterministic=True)


if __name__ == "__main__":
    run(main)

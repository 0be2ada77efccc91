"""Prove that the programs of a release predict what PyTorch predicted in `evaluate`."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.base.errors import UserError, cut
from stages.model.signature import Signature, read_signature
from stages.release.card import predict, read_weights
from stages.release.manifest import MODEL, ONNX
from stages.rows.predictions import Predictions
from stages.rows.split import Split

MAX_ROUNDINGS = 2**10  # that programs may differ by, relative to the range of all predictions
CURES = {
    "NumPy": "Run `dvc repro --force`, or set `prepare.dtype` to float64.",
    "ONNX Runtime": "Set `save.onnx` to false.",
    "PyTorch in pieces": "In stages/network.py, let a prediction depend on its row alone.",
}

Program = Callable[[NDArray[Any]], NDArray[Any]]  # inputs (rows, features) → predictions (rows, 1)


@contextmanager
def onnx_refusals() -> Iterator[None]:
    """Say in one sentence that a network cannot be computed with ONNX."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import; else it writes and sends data
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime  # noqa: PLC0415

    errors = [runtime.Fail, runtime.InvalidArgument, runtime.InvalidGraph]
    errors += [runtime.NotImplemented, runtime.RuntimeException]
    try:
        yield
    except (RuntimeError, TypeError, ValueError, *errors) as error:
        reason = cut(" ".join(str(error).split()).rstrip("."))
        raise UserError(
            f"save: ONNX cannot do this network: {reason}. Set `save.onnx` to false."
        ) from None


def prove(folder: Path, split: Split, predictions: Predictions) -> dict[str, float]:
    """Compare each program of a release with PyTorch's ``predictions`` for all rows of ``split``.

    Returns:
        The largest difference of each program, relative to the range of all predictions.

    Raises:
        UserError: If a program predicts other values.
    """
    signature = read_signature(folder / MODEL)
    if signature.hidden is None:
        programs = {"PyTorch in pieces": start_model(folder / MODEL)}
    else:
        weights = read_weights(folder / MODEL)
        programs = {"NumPy": lambda inputs: predict(weights, inputs)}
    if (folder / ONNX).exists():
        programs["ONNX Runtime"] = start_session((folder / ONNX).read_bytes())
    differences = dict.fromkeys(programs, 0.0)
    lowest, highest = math.inf, -math.inf
    for number in range(split.num_blocks):
        inputs = np.ascontiguousarray(split.read(number)[:, :-1])
        expected = predictions.read(number).astype(np.float64)
        lowest, highest = min(lowest, expected.min()), max(highest, expected.max())
        for name, program in programs.items():
            difference = np.abs(in_pieces(program, inputs) - expected).max()
            differences[name] = float(np.maximum(differences[name], difference))  # NaN stays
    size = max(highest - lowest, abs(lowest) / 64, abs(highest) / 64) or 1.0
    allowed = tolerance(signature)
    for name, difference in differences.items():
        if not difference <= allowed * size:
            raise UserError(
                f"save: {name} and PyTorch predict different values from the released weights: they"
                f" differ by {difference:.2g}, and at most {allowed * size:.2g} is allowed."
                f" {CURES[name]}"
            )
    return {name: difference / size for name, difference in differences.items()}


def tolerance(signature: Signature) -> float:
    """Return the largest difference that rounding may cause, relative to the range."""
    return MAX_ROUNDINGS * float(np.finfo(signature.dtype).eps)


def in_pieces(program: Program, inputs: NDArray[Any]) -> NDArray[Any]:
    """Predict 1, 2, 4, 8 … rows at a time, the last rows first: this must not matter."""
    ends = [2**power - 1 for power in range(1, len(inputs).bit_length())]
    return np.concatenate([program(piece) for piece in np.split(inputs, ends)[::-1]][::-1])


def start_model(path: Path) -> Program:
    """Return a function that predicts with PyTorch, as `open_release` does."""
    import torch  # noqa: PLC0415 (only for a network of one's own)

    from stages.model.model import Model  # noqa: PLC0415

    model = Model.load(path)
    return torch.inference_mode()(lambda inputs: model(torch.from_numpy(inputs)).numpy())


@onnx_refusals()
def start_session(content: bytes) -> Program:
    """Return a function that predicts with ONNX Runtime, whose telemetry is off."""
    import onnxruntime  # noqa: PLC0415 (only for a release with model.onnx)

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return onnx_refusals()(lambda inputs: session.run(["predictions"], {"inputs": inputs})[0])

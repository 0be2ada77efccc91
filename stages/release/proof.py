"""Prove that the programs of a release predict what PyTorch predicted in `evaluate`."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.base.errors import UserError, cut
from stages.model.signature import Signature, read_signature
from stages.release.manifest import MODEL, ONNX
from stages.release.reference import predict, read_weights
from stages.rows.predictions import Predictions
from stages.rows.split import Split

# Relative to `magnitudes`. Right programs of usual dense networks need at most 16.
DENSE_ROUNDINGS = 64
# Relative to the range of all predictions: the kernels of other layers differ more.
OTHER_ROUNDINGS = 2**10

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
    from onnx.checker import ValidationError  # noqa: PLC0415 (only with model.onnx)
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime  # noqa: PLC0415

    errors = [runtime.Fail, runtime.InvalidArgument, runtime.InvalidGraph]
    errors += [runtime.NotImplemented, runtime.RuntimeException]
    try:
        yield
    except (RuntimeError, TypeError, ValueError, ValidationError, *errors) as error:
        reason = cut(" ".join(str(error).split()))
        raise UserError(
            f"save: ONNX cannot do this network: {reason}. Set `save.onnx` to false."
        ) from None


def prove(folder: Path, split: Split, predictions: Predictions) -> dict[str, float]:
    """Compare each program of a release with PyTorch's ``predictions`` for all rows of ``split``.

    Returns:
        The largest difference of each program, relative to `magnitudes`.

    Raises:
        UserError: If a program predicts other values.
    """
    signature = read_signature(folder / MODEL)
    programs: dict[str, Program] = {}
    if signature.hidden is None:
        programs["PyTorch in pieces"] = start_model(folder / MODEL)
        blocks = map(predictions.read, range(split.num_blocks))
        extremes = [extreme for block in blocks for extreme in (block.min(), block.max())]
        scale: Any = np.ptp(extremes) + np.abs(extremes).max() * DENSE_ROUNDINGS / OTHER_ROUNDINGS
    else:
        weights = read_weights(folder / MODEL)
        programs["NumPy"] = lambda inputs: predict(weights, inputs)
    if (folder / ONNX).exists():
        programs["ONNX Runtime"] = start_session((folder / ONNX).read_bytes())
    allowed, largest = tolerance(signature), dict.fromkeys(programs, 0.0)
    for number in range(split.num_blocks):
        inputs = np.ascontiguousarray(split.read(number)[:, :-1])
        expected = predictions.read(number)
        if signature.hidden is not None:
            half = float(np.abs(expected).max()) / 2  # so large a difference is never rounding
            scale = np.minimum(magnitudes(weights, inputs), half / allowed or np.inf)
        for name, program in programs.items():
            difference = np.abs(in_pieces(program, inputs).astype(np.float64) - expected) / scale
            largest[name] = float(np.maximum(largest[name], difference.max()))  # NaN stays
    for name, difference in largest.items():
        if not difference <= allowed:
            raise UserError(
                f"save: {name} and PyTorch predict different values from the released weights: the"
                f" relative difference is {difference:.2g}, and at most {allowed:.2g} is allowed."
                f" {CURES[name]}"
            )
    return largest


def tolerance(signature: Signature) -> float:
    """Return the largest difference that rounding may cause."""
    roundings = OTHER_ROUNDINGS if signature.hidden is None else DENSE_ROUNDINGS
    return roundings * float(np.finfo(signature.dtype).eps)


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


def magnitudes(weights: Mapping[str, NDArray[Any]], inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return the size of the numbers that add up to each prediction: rounding is relative to it.

    The rounding error of a unit is relative to the sum of its terms' magnitudes. The errors of
    different units are independent, so their squares add up (Higham and Mary, "A New Approach to
    Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41(5), 2019). So the size does not
    grow faster with the number of layers than the predictions do.

    Returns:
        Shape ``(rows, 1)``, float64, greater than 0.
    """
    exact = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    values = (inputs - exact["input_mean"]) / exact["input_scale"]
    squares = np.zeros_like(values)
    for layer in range(0, 2 * sum(name.endswith("weight") for name in weights), 2):
        weight, bias = exact[f"network.{layer}.weight"].T, exact[f"network.{layer}.bias"]
        values = np.maximum(values, 0) if layer else values
        terms = np.abs(values) @ np.abs(weight) + np.abs(bias)
        squares = squares @ weight**2 + terms**2
        values = values @ weight + bias
    size = np.sqrt(squares) * np.abs(exact["target_scale"])
    size += np.abs(exact["target_mean"]) / 16  # added once, so four roundings of it are enough
    return size + np.finfo(inputs.dtype).tiny  # smaller numbers are rounded as this one

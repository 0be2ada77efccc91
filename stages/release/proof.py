"""Prove that the programs of a release predict what PyTorch predicted in `evaluate`."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.base.errors import UserError
from stages.release.manifest import MODEL, Manifest
from stages.release.reference import predict, read_weights
from stages.rows.predictions import Predictions
from stages.rows.split import Split

# The bound by magnitudes is loose for deep networks. So predictions of the split may also differ by
# at most this part of their largest distance from the mean, and so many roundings of their size.
MAX_GAP, MAX_ROUNDINGS = 1e-3, 64
Numbers = NDArray[Any]  # float32 or float64
Session = Callable[[Numbers], Numbers]  # inputs (rows, features) → predictions (rows, 1)


def prove(
    folder: Path, manifest: Manifest, onnx: bytes | None, split: Split, predictions: Predictions
) -> dict[str, float]:
    """Compare the programs' predictions with those of PyTorch, for all rows of ``split``.

    ONNX Runtime is also compared with NumPy on other batch sizes and on extreme numbers.

    Args:
        folder: The release.
        manifest: Its model.json.
        onnx: Its model.onnx, if there is one.
        split: The rows.
        predictions: What PyTorch predicted for them.

    Returns:
        The largest relative difference of each program.

    Raises:
        UserError: If a program predicts other values.
    """
    weights = read_weights(folder / MODEL)
    programs: dict[str, Session] = {"NumPy": lambda inputs: predict(weights, inputs)}
    if onnx is not None:
        programs["ONNX Runtime"] = start_session(onnx)
    worst = {}
    with np.errstate(all="ignore"):  # extreme numbers overflow and underflow
        for name, program in programs.items():
            worst[name] = compare(name, program, weights, split, predictions)
        if onnx is not None:
            worst["ONNX Runtime"] = max(
                worst["ONNX Runtime"],
                *(
                    largest_difference(
                        weights, inputs, programs["ONNX Runtime"](inputs), predict(weights, inputs)
                    )
                    for inputs in more_batches(split, manifest.proof.batches)
                ),
            )
    allowed = manifest.proof.difference_at_most
    for name, difference in worst.items():
        if not difference <= allowed:
            cure = "Set `save.onnx` to false." if name != "NumPy" else "Run `dvc repro --force`."
            raise UserError(
                f"save: {name} and PyTorch predict different values from the released weights: the"
                f" relative difference is {difference:.2g}, and at most {allowed:g} is allowed."
                f" {cure}"
            )
    return worst


def compare(
    name: str,
    program: Session,
    weights: dict[str, Numbers],
    split: Split,
    predictions: Predictions,
) -> float:
    """Compare a program's predictions with those of PyTorch for all rows of ``split``.

    Returns:
        The largest relative difference.

    Raises:
        UserError: If a difference is large for these predictions.
    """
    worst = gap = scale = size = 0.0
    for block in range(split.num_blocks):
        inputs = np.ascontiguousarray(split.read(block)[:, :-1])
        predicted, expected = program(inputs), predictions.read(block)
        worst = max(worst, largest_difference(weights, inputs, predicted, expected))
        gap = max(gap, float(np.abs(predicted - expected).max()))
        scale = max(scale, float(np.abs(expected - weights["target_mean"]).max()))
        size = max(size, float(np.abs(expected).max()))
    largest_gap = MAX_GAP * scale + MAX_ROUNDINGS * float(np.finfo(split.dtype).eps) * size
    if not gap <= largest_gap:
        raise UserError(
            f"save: {name} and PyTorch predict values that differ by {gap:.2g}, and at most"
            f" {largest_gap:.2g} is allowed for these predictions. If the network is right, set"
            " `train.standardize` to true, or `prepare.dtype` to float64."
        )
    return worst


def start_session(content: bytes) -> Session:
    """Return a function that predicts with ONNX Runtime, whose telemetry is off."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import; else it writes and sends data
    import onnxruntime  # noqa: PLC0415 (only for a release with model.onnx)

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["predictions"], {"inputs": inputs})[0]


def more_batches(split: Split, sizes: Iterable[int]) -> Iterator[Numbers]:
    """Yield the first rows of ``split``, repeated to each size, and extreme numbers."""
    first = split.read(0)[:, :-1]
    for size in sizes:
        yield first[np.arange(size) % len(first)]
    yield extremes(len(split.features), split.dtype)


def extremes(num_features: int, dtype: str) -> Numbers:
    """Return rows of the largest, smallest, subnormal numbers and zero, each with three signs."""
    limits = np.finfo(dtype)
    numbers = [limits.max, limits.tiny, limits.smallest_subnormal, 0.0]
    signs = np.ones((3, num_features), dtype)
    signs[1] = -1.0
    signs[2, ::2] = -1.0
    return np.concatenate([signs * np.asarray(number, dtype) for number in numbers])


def largest_difference(
    weights: dict[str, Numbers], inputs: Numbers, predicted: Numbers, expected: Numbers
) -> float:
    """Compare predictions.

    Returns:
        The largest difference, relative to the magnitudes that add up to a prediction. Infinity if
        one is a number and the other is NaN or infinite, although no intermediate number overflows.
    """
    assert predicted.shape == expected.shape
    scale = magnitudes(weights, inputs)
    difference = np.abs(predicted.astype(np.float64) - expected) / scale
    # If an intermediate number may overflow, the result depends on the order of operations.
    is_equal = (predicted == expected) | (np.isnan(predicted) & np.isnan(expected))
    difference[np.isinf(scale) | is_equal] = 0.0
    return float(np.nan_to_num(difference, nan=np.inf).max())


def magnitudes(weights: dict[str, Numbers], inputs: Numbers) -> NDArray[np.float64]:
    """Sum the magnitudes of all terms of a prediction: rounding errors are relative to this sum.

    Running error analysis: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.3.
    Each layer adds the absolute values of its inputs to the magnitudes so far, multiplies by its
    absolute weights, and adds its absolute bias. Terms that may underflow add the smallest normal
    number each.

    Returns:
        Shape ``(rows, 1)``, float64; infinity where an intermediate number may overflow.
    """
    absolute = {name: np.abs(tensor.astype(np.float64)) for name, tensor in weights.items()}
    limits = np.finfo(inputs.dtype)
    values = (inputs - weights["input_mean"]) / weights["input_scale"]
    sizes = np.zeros(1)
    largest = np.abs(values.astype(np.float64)).max(axis=1, keepdims=True)
    for layer in range(0, 2 * sum(name.endswith("weight") for name in weights), 2):
        weight, bias = f"network.{layer}.weight", f"network.{layer}.bias"
        values = np.maximum(values, 0) if layer else values
        terms = np.abs(values.astype(np.float64)) + sizes
        sizes = terms @ absolute[weight].T + absolute[bias] + limits.tiny * values.shape[1]
        largest = np.maximum(largest, sizes.max(axis=1, keepdims=True))
        values = values @ weights[weight].T + weights[bias]
    sizes = sizes * absolute["target_scale"] + absolute["target_mean"]
    is_safe = np.maximum(largest, sizes) <= limits.max
    return np.where(is_safe, sizes + limits.tiny, np.inf)

"""Prove that the released model predicts what the trained one does, in a process of its own."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stages.base.errors import UserError
from stages.base.files import PREPARED, WEIGHTS
from stages.base.process import run
from stages.model.model import Model
from stages.release.manifest import MODEL, ONNX
from stages.release.release import open_release
from stages.rows.split import Split

Session = Callable[[NDArray[np.floating]], NDArray[np.floating]]  # inputs → predictions


def main() -> None:
    folder = Path(sys.argv[1])
    release = open_release(folder)
    proof = release.manifest.proof
    split = Split(PREPARED / f"{proof.split}.parquet")
    prove(release.model, Model.load(WEIGHTS), split)
    print(f"save: in a new process, the model predicts the same bits for {split.num_rows} rows")
    if release.onnx is not None and proof.onnx_difference_at_most is not None:
        batches = all_batches(release.model, split, proof.batches)
        worst = largest_difference(release.model, start_session(release.onnx), batches)
        if not worst <= proof.onnx_difference_at_most:
            raise UserError(
                f"save: ONNX Runtime and {MODEL} predict different values: the relative difference"
                f" is {worst:.2g}, and at most {proof.onnx_difference_at_most:g} is allowed. Set"
                " `save.onnx` to false."
            )
        print(f"save: ONNX Runtime predicts the same from {ONNX}; largest difference {worst:.0e}")


@torch.inference_mode()
def prove(released: Model, trained: Model, split: Split) -> None:
    """Compare the predictions on all rows of ``split``, bit by bit.

    Raises:
        UserError: If the predictions for a row differ.
    """
    for inputs in blocks(split):
        if released(inputs).numpy().tobytes() != trained(inputs).numpy().tobytes():
            raise UserError(
                "save: the released and the trained model predict different values for rows of"
                f" {split.path}. Run `dvc repro --force save`."
            )


def blocks(split: Split) -> Iterator[Tensor]:
    """Yield the inputs of all rows, block by block."""
    for block in range(split.num_blocks):
        yield torch.from_numpy(split.read(block))[:, :-1]


def start_session(content: bytes) -> Session:
    """Return a function that predicts with ONNX Runtime, whose telemetry is off."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import; else it writes and sends data
    import onnxruntime  # noqa: PLC0415 (only for a release with model.onnx)

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["predictions"], {"inputs": inputs})[0]


def all_batches(model: Model, split: Split, sizes: Iterable[int]) -> Iterator[Tensor]:
    """Yield all rows of ``split``, its first rows repeated to each size, and extreme numbers."""
    yield from blocks(split)
    first = next(blocks(split))
    for size in sizes:
        yield first[torch.arange(size) % len(first)]
    yield extremes(model)


def extremes(model: Model) -> Tensor:
    """Return rows of the largest, smallest, subnormal numbers and zero, each with three signs."""
    limits = torch.finfo(model.dtype)
    numbers = [limits.max, limits.tiny, limits.tiny * limits.eps, 0.0]  # tiny · eps: subnormal
    signs = torch.ones(3, len(model.features), dtype=model.dtype)
    signs[1] = -1.0
    signs[2, ::2] = -1.0
    return torch.cat([signs * number for number in numbers])


@torch.inference_mode()
def largest_difference(model: Model, session: Session, batches: Iterable[Tensor]) -> float:
    """Compare the predictions of ONNX Runtime with the model's.

    Returns:
        The largest difference, relative to the magnitudes that add up to a prediction. Infinity if
        one is a number and the other is NaN or infinite, although no intermediate number overflows.
    """
    worst = 0.0
    for inputs in batches:
        expected = model(inputs).double()
        predicted = torch.from_numpy(session(inputs.numpy())).double()
        assert predicted.shape == expected.shape
        scale = magnitudes(model, inputs)
        difference = (predicted - expected).abs() / scale
        # If an intermediate number may overflow, the result depends on the order of operations.
        difference[scale.isinf()] = 0.0
        difference[(predicted == expected) | (predicted.isnan() & expected.isnan())] = 0.0
        worst = max(worst, difference.nan_to_num(nan=torch.inf).max().item())
    return worst


def magnitudes(model: Model, inputs: Tensor) -> Tensor:
    """Sum the magnitudes of all terms of a prediction: rounding errors are relative to this sum.

    Running error analysis: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.3.
    Each layer adds the absolute values of its inputs to the magnitudes so far, multiplies by its
    absolute weights, and adds its absolute bias. Terms that may underflow add the smallest normal
    number each.

    Returns:
        Shape ``(rows, 1)``, float64; infinity where an intermediate number may overflow.
    """
    limits = torch.finfo(model.dtype)
    values = model.scale_inputs(inputs)  # the same bits everywhere: no sums
    sizes = torch.zeros(1, dtype=torch.float64)
    largest = values.double().abs().amax(dim=1, keepdim=True)
    for layer in model.network:
        if isinstance(layer, nn.Linear):
            terms = values.double().abs() + sizes
            weight, bias = layer.weight.double().abs(), layer.bias.double().abs()
            sizes = terms @ weight.T + bias + limits.tiny * layer.in_features
            largest = largest.maximum(sizes.amax(dim=1, keepdim=True))
        values = layer(values)
    sizes = sizes * model.target_scale.double().abs() + model.target_mean.double().abs()
    overflows = ~(largest.maximum(sizes) <= limits.max)
    return (sizes + limits.tiny).masked_fill(overflows, torch.inf)


if __name__ == "__main__":
    run(main)

"""Proof, in a process of its own, that a released model predicts what the trained one does."""

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
    print(
        f"save: loaded in a new process, the same predictions to the bit on {split.num_rows} rows"
    )
    if release.onnx is not None and proof.onnx_difference_at_most is not None:
        batches = all_batches(release.model, split, proof.batches)
        worst = largest_difference(release.model, start_session(release.onnx), batches)
        if not worst <= proof.onnx_difference_at_most:
            raise UserError(
                f"save: ONNX Runtime predicts otherwise than {MODEL}: a difference of {worst:.2g},"
                f" where {proof.onnx_difference_at_most:g} is allowed. Set `save.onnx` to false."
            )
        print(f"save: ONNX Runtime predicts the same from {ONNX}, to {worst:.0e}")


@torch.inference_mode()
def prove(released: Model, trained: Model, split: Split) -> None:
    """Compare the predictions on all rows of ``split``, bit by bit.

    Raises:
        UserError: If a row's predictions differ.
    """
    for inputs in blocks(split):
        if released(inputs).numpy().tobytes() != trained(inputs).numpy().tobytes():
            raise UserError(
                f"save: the released model predicts otherwise than the trained one on rows of"
                f" {split.path}. Run `dvc repro --force save`."
            )


def blocks(split: Split) -> Iterator[Tensor]:
    """The inputs of all rows, block by block."""
    for block in range(split.num_blocks):
        yield torch.from_numpy(split.read(block))[:, :-1]


def start_session(content: bytes) -> Session:
    """What predicts by ONNX Runtime, which neither writes files nor reports to its makers here."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when it is imported
    import onnxruntime  # noqa: PLC0415 (only for a release with model.onnx)

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["predictions"], {"inputs": inputs})[0]


def all_batches(model: Model, split: Split, sizes: Iterable[int]) -> Iterator[Tensor]:
    """All rows of ``split``; batches of its first rows, repeated; and extreme finite numbers."""
    yield from blocks(split)
    first = next(blocks(split))
    for size in sizes:
        yield first[torch.arange(size) % len(first)]
    yield extremes(model)


def extremes(model: Model) -> Tensor:
    """Rows of the largest, smallest and subnormal numbers and of zero, each with three signs."""
    limits = torch.finfo(model.dtype)
    numbers = [limits.max, limits.tiny, limits.tiny * limits.eps, 0.0]  # tiny · eps: subnormal
    signs = torch.ones(3, len(model.features), dtype=model.dtype)
    signs[1] = -1.0
    signs[2, ::2] = -1.0
    return torch.cat([signs * number for number in numbers])


@torch.inference_mode()
def largest_difference(model: Model, session: Session, batches: Iterable[Tensor]) -> float:
    """The largest difference of predictions, of the sum of all magnitudes that make them.

    Returns:
        Infinity if predictions differ in their kind (number, NaN or an infinity), though no number
        on the way may overflow.
    """
    worst = 0.0
    for inputs in batches:
        expected = model(inputs).double()
        found = torch.from_numpy(session(inputs.numpy())).double()
        assert found.shape == expected.shape
        size = magnitudes(model, inputs)
        difference = (found - expected).abs() / size
        # Where a number on the way may overflow, the order of operations decides what comes out.
        difference[size.isinf()] = 0.0
        difference[(found == expected) | (found.isnan() & expected.isnan())] = 0.0
        worst = max(worst, difference.nan_to_num(nan=torch.inf).max().item())
    return worst


def magnitudes(model: Model, inputs: Tensor) -> Tensor:
    """What rounding errors of a prediction are relative to, where terms cancel, too.

    Running error analysis: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.3.
    A layer's magnitudes are the sum of its terms' absolute values, and what those of the layer
    before become in it. Every sum's terms that underflow add a smallest normal number each.

    Returns:
        Shape ``(rows, 1)``, float64; infinity where a number on the way may overflow.
    """
    limits = torch.finfo(model.dtype)
    values = model.scale_inputs(inputs)  # the same bits: these operations have no order
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

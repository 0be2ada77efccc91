"""model.json: describes a release, its data, its scores and its proof."""

from pathlib import Path
from typing import Any, Literal

from stages.base.files import sha256
from stages.base.params import StrictModel

MANIFEST = "model.json"
MODEL = "model.safetensors"
ONNX = "model.onnx"


class Column(StrictModel):
    """An input or the target: its type, and its range and mean over the training rows."""

    name: str
    type: Literal["float32", "float64"]
    minimum: float
    maximum: float
    mean: float


class Manifest(StrictModel):
    """The content of model.json."""

    inputs: list[Column]
    target: Column
    categories: dict[str, list[str]]
    fill: dict[str, float]  # what stands for a missing cell of each column of numbers
    architecture: dict[str, Any]  # network, in words; widths of inputs, hidden layers and output
    not_portable: list[str]  # why the bits may depend on the kind of CPU
    trained_on: str  # the kind of device
    versions: dict[str, str]
    parameters: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    data: dict[str, str]  # SHA-256 of each file of data/prepared
    files: dict[str, dict[str, str | int]]  # what `describe_file` returns for each model file
    proof: dict[str, Any]  # split, rows, programs; difference_at_most: relative to the range


def describe_file(path: Path) -> dict[str, str | int]:
    """Return the hash and the size of a file."""
    return {"sha256": sha256(path), "size_bytes": path.stat().st_size}

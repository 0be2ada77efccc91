"""model.json: describes a release, its data, its scores and its proof."""

import math
from typing import Any, Final, Literal

import numpy as np

from stages.base.strict_model import StrictModel
from stages.model.signature import Signature
from stages.rows.categories import inputs_of
from stages.rows.split import Statistics

FileName = Literal["model.safetensors", "model.onnx"]

MANIFEST = "model.json"
MODEL: Final = "model.safetensors"
ONNX: Final = "model.onnx"
FILES: tuple[FileName, ...] = (MODEL, ONNX)
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}  # relative; see proof.py
BATCHES = 1, 2, 7, 100_000  # rows
MAX_NUMBERS = 2**24  # in the widest layer, for one batch: the proof needs about 1 GiB


class Column(StrictModel):
    """An input or the target: its type, and its range and mean over the training rows."""

    name: str
    type: Literal["float32", "float64"]
    minimum: float
    maximum: float
    mean: float


class Architecture(StrictModel):
    """Linear layers with ReLU between. ``widths``: of inputs, hidden layers and output."""

    activation: Literal["relu"] = "relu"
    hidden: list[int]
    widths: list[int]


class File(StrictModel):
    """The hash and the size of a released file."""

    sha256: str
    size_bytes: int


class Proof(StrictModel):
    """What was compared before release with the predictions of PyTorch for all rows of a split."""

    split: Literal["test", "train"]
    rows: int
    programs: list[str]  # that predicted the same: numpy, model.onnx
    batches: list[int]  # further batch sizes that ONNX Runtime predicted
    difference_at_most: float  # relative to the magnitudes that add up to a prediction


class Manifest(StrictModel):
    """The content of model.json."""

    inputs: list[Column]
    target: Column
    categories: dict[str, list[str]]
    architecture: Architecture
    trained_on: str  # the kind of device
    versions: dict[str, str]
    parameters: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    data: dict[str, str]  # SHA-256 of each file of data/prepared
    files: dict[FileName, File]
    proof: Proof

    def met_categories(self, column: str) -> list[str]:
        """List the categories of a column that occur in training rows."""
        highest = {item.name: item.maximum for item in self.inputs}
        pairs = zip(self.categories[column], inputs_of(column, self.categories), strict=True)
        return [category for category, name in pairs if highest[name] > 0]

    def signature(self) -> Signature:
        """Return the signature that model.safetensors must hold, too."""
        return Signature(
            features=[column.name for column in self.inputs],
            target=self.target.name,
            categories=self.categories,
            hidden=self.architecture.hidden,
            dtype=self.target.type,
            trained_on=self.trained_on,
            versions=self.versions,
        )


def columns(signature: Signature, statistics: Statistics) -> list[Column]:
    """Describe the inputs in order, then the target."""
    return [
        Column(
            name=name,
            type=signature.dtype,
            minimum=statistics.minimum[name],
            maximum=statistics.maximum[name],
            mean=statistics.mean[name],
        )
        for name in [*signature.features, signature.target]
    ]


def proof(signature: Signature, statistics: Statistics, *, has_onnx: bool) -> Proof:
    """Plan the proof: on the test rows or, if there are none, on the training rows."""
    split: Literal["test", "train"] = "test" if statistics.rows["test"] else "train"
    widest = max(len(signature.features), *signature.hidden, 1)
    most_rows = max(MAX_NUMBERS // widest, 1)
    # The error of a sum of n numbers is about √n roundings (Higham and Mary, "A New Approach to
    # Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41(5), 2019).
    roundings = math.sqrt(widest) * float(np.finfo(signature.dtype).eps)
    return Proof(
        split=split,
        rows=statistics.rows[split],
        programs=["numpy", *[ONNX] * has_onnx],
        batches=sorted({min(size, most_rows) for size in BATCHES}) if has_onnx else [],
        difference_at_most=max(TOLERANCE[signature.dtype], roundings),
    )

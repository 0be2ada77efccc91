"""model.json: what a release is, from which data and with which scores, and what was proved."""

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
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}  # of ONNX Runtime, see proof.py
BATCHES = 1, 2, 7, 100_000  # rows
MAX_NUMBERS = 2**24  # of a batch in the widest layer: the proof takes about 1 GiB


class Column(StrictModel):
    """An input, or the target: its type, and what the training rows hold."""

    name: str
    type: Literal["float32", "float64"]
    minimum: float
    maximum: float
    mean: float


class Architecture(StrictModel):
    """Linear layers with ReLU between; widths are of the inputs, the hidden layers, the output."""

    activation: Literal["relu"] = "relu"
    hidden: list[int]
    widths: list[int]


class File(StrictModel):
    """A file of the release, as it was released."""

    sha256: str
    size_bytes: int


class Proof(StrictModel):
    """What held, or this was not released: equal bits, and ONNX Runtime's largest difference."""

    split: Literal["test", "train"]
    rows: int
    batches: list[int]  # further sizes of batches that ONNX Runtime predicted
    onnx_difference_at_most: float | None  # of the sum of all magnitudes that make a prediction


class Manifest(StrictModel):
    """The whole of model.json."""

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
        """The categories of a column that training rows had."""
        highest = {each.name: each.maximum for each in self.inputs}
        pairs = zip(self.categories[column], inputs_of(column, self.categories), strict=True)
        return [category for category, name in pairs if highest[name] > 0]

    def signature(self) -> Signature:
        """What must stand in model.safetensors, too."""
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
    """The inputs in order, then the target."""
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
    """What `proof` will prove, on the test rows or, where there are none, the training rows."""
    split: Literal["test", "train"] = "test" if statistics.rows["test"] else "train"
    widest = max(len(signature.features), *signature.hidden, 1)
    most_rows = max(MAX_NUMBERS // widest, 1)
    # A sum of n numbers is off by some √n roundings (Higham and Mary, "A New Approach to
    # Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41(5), 2019).
    roundings = math.sqrt(widest) * float(np.finfo(signature.dtype).eps)
    return Proof(
        split=split,
        rows=statistics.rows[split],
        batches=sorted({min(size, most_rows) for size in BATCHES}) if has_onnx else [],
        onnx_difference_at_most=max(TOLERANCE[signature.dtype], roundings) if has_onnx else None,
    )

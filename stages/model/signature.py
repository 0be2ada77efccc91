"""The signature in a file of weights: features, target and all that rebuilds the model."""

import json
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from stages.base.errors import UserError, cut
from stages.base.params import StrictModel, TrainParams

METADATA = "model"  # the only metadata key: safetensors writes two in random order


class Signature(StrictModel):
    """What describes a model; its JSON has exactly these keys and types."""

    features: list[str]  # in the order of the inputs
    target: str
    categories: dict[str, list[str]]
    network: str  # in words, such as its class and its size
    hidden: list[int] | None  # widths of the hidden layers; None if it is not dense with ReLU
    probe: list[float]  # what it predicts for eight rows, in z-scores: another network differs
    dtype: Literal["float32", "float64"]
    train: TrainParams
    not_portable: list[str]  # why the bits may depend on the kind of CPU
    trained_on: str  # the type of the device, such as cpu
    versions: dict[str, str]

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata of the file of weights."""
        return {METADATA: json.dumps(self.model_dump(), sort_keys=True, ensure_ascii=False)}


def read_signature(path: Path) -> Signature:
    """Read the signature in a file of weights.

    Raises:
        UserError: If the file is missing, or this project did not write it.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. Run `dvc repro`, or `python -m stages.train`.")
    try:
        with safe_open(path, framework="numpy") as file:
            return Signature.model_validate_json(file.metadata()[METADATA])
    except (SafetensorError, ValidationError, KeyError, TypeError) as error:
        text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        reason = cut(" ".join(text.split()))
        raise UserError(f"{path} is not a model of this project: {reason}. Train again.") from None

"""What goes into a model and comes out, and what rebuilds it: the text in its file of weights."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from safetensors import SafetensorError, safe_open

from stages.base.errors import UserError, cut
from stages.base.strict_model import StrictModel
from stages.rows.categories import columns_of, inputs_of

METADATA = "model"  # the file's one metadata key: two would be written in random order


class Signature(StrictModel):
    """The network's inputs in order, the target, and the network; exactly these keys and types."""

    features: list[str]
    target: str
    categories: dict[str, list[str]]
    hidden: list[Annotated[int, Field(ge=1, le=2**16)]]
    dtype: Literal["float32", "float64"]
    trained_on: str  # the kind of device
    versions: dict[str, str]

    @model_validator(mode="after")
    def _require_inputs(self) -> Self:
        columns = columns_of(self.features, self.categories)
        inputs = [*chain(*(inputs_of(column, self.categories) for column in columns))]
        if not inputs or inputs != self.features or len({*inputs}) < len(inputs):
            raise PydanticCustomError("inputs", "its features are not the inputs of columns")
        return self

    def to_metadata(self) -> dict[str, str]:
        """What the file of weights holds beside them."""
        text = json.dumps(self.model_dump(), sort_keys=True, ensure_ascii=False)
        return {METADATA: text}


@contextmanager
def open_weights(path: Path, framework: str) -> Iterator[tuple[Signature, Any]]:
    """A file of weights: its signature, and what reads its tensors.

    Raises:
        UserError: If the file is missing, or is not a model that this project wrote.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. Run `dvc repro`, or `python -m stages.train`.")
    try:
        with safe_open(path, framework=framework) as file:
            yield Signature.model_validate_json(file.metadata()[METADATA]), file
    except (SafetensorError, ValidationError, KeyError, TypeError, RuntimeError) as error:
        text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        reason = cut(" ".join(text.split()))
        raise UserError(f"{path} is not a model of this project: {reason}. Train again.") from None

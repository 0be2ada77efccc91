"""The schema of params.yaml. The whole file is checked before any work."""

import difflib
import json
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from stages.base.errors import UserError, cut
from stages.base.files import PARAMS
from stages.base.strict_model import StrictModel
from stages.base.yaml12 import read_yaml

DEVICE_PATTERN = re.compile(r"auto|cpu|mps|(cuda|xpu)(:(0|[1-9][0-9]?))?")
LARGEST = 1e300  # of numbers; float64 still holds sums and multiples of them


def _must(rule: str, holds: Callable[[Any], object]) -> Callable[[Any], Any]:
    def check(value: object) -> object:
        if not holds(value):
            raise PydanticCustomError("rule", "Input should {rule}", {"rule": rule})
        return value

    return check


def _is_source(source: str) -> bool:
    path = PurePosixPath(source)
    is_inside = not path.is_absolute() and ".." not in path.parts
    return is_inside and path.name != "" and "\0" not in source


def _is_marker(marker: object) -> bool:
    if isinstance(marker, int | float) and not isinstance(marker, bool):
        return abs(marker) <= LARGEST
    return isinstance(marker, str)


def is_delimiter(text: str) -> bool:
    """Whether a text can be the delimiter of a CSV file."""
    return len(text) == 1 and text.isascii() and text not in '"\r\n\0'


Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, lt=10**9)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Number = Annotated[
    float, AfterValidator(_must("lie between -1e300 and 1e300", lambda n: abs(n) <= LARGEST))
]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Source = Annotated[
    str,
    AfterValidator(_must("be line, or a file or folder in data/raw", _is_source)),
]
Device = Annotated[
    str, AfterValidator(_must("be auto, cpu, cuda, cuda:1, mps or xpu", DEVICE_PATTERN.fullmatch))
]
Delimiter = Annotated[str, AfterValidator(_must("be one ASCII character", is_delimiter))]
Columns = Annotated[
    list[str],
    AfterValidator(_must("name at least one column", bool)),
    AfterValidator(_must("name each column once", lambda names: len({*names}) == len(names))),
]
Marker = Annotated[str | float, PlainValidator(_must("be text or a finite number", _is_marker))]


class PrepareParams(StrictModel):
    """The source of the rows, and how they are split. params.yaml explains each parameter."""

    source: Source
    m: Number
    b: Number
    rows: Count
    noise: Annotated[Number, Field(ge=0)]
    features: Columns | None
    target: str
    delimiter: Delimiter
    decimal: Literal[".", ","]
    missing: Literal["error", "drop"]
    missing_values: list[Marker]
    split: Literal["random", "ordered"]
    validation: Fraction
    test: Fraction
    dtype: Literal["float32", "float64"]
    seed: Seed

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.validation + self.test >= 1:
            raise _conflict(
                "`prepare.validation` + `prepare.test` must be less than 1, or no row is left to"
                f" train on. Got {self.validation} + {self.test}."
            )
        if self.features is not None and self.target in self.features:
            raise _conflict(
                f"`prepare.features` must not name the target, `{self.target}`. Remove it there,"
                " or choose another `prepare.target`."
            )
        if self.source != "line" and self.delimiter == self.decimal:
            raise _conflict(
                "`prepare.delimiter` and `prepare.decimal` must differ."
                f' Got "{self.decimal}" for both.'
            )
        return self


class TrainParams(StrictModel):
    """The network and its training. params.yaml explains each parameter."""

    hidden: list[Width]
    standardize: bool
    loss: Literal["mse", "mae", "huber"]
    optimizer: Literal["sgd", "adam", "lbfgs"]
    lr: Annotated[float, Field(gt=0, le=1e6)]
    epochs: Count
    batch_size: Count | None
    patience: Count | None
    numerics: Literal["portable", "native"]
    seed: Seed

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.optimizer == "lbfgs" and self.batch_size is not None:
            raise _conflict(
                "`train.batch_size` must be null with `train.optimizer` lbfgs: each of its steps"
                f" needs all training rows. Got {self.batch_size}."
            )
        return self


class EvaluateParams(StrictModel):
    """The plots. params.yaml explains each parameter."""

    plot_rows: Count


class SaveParams(StrictModel):
    """The release and its conditions. params.yaml explains each parameter."""

    onnx: bool
    require: dict[Literal["rmse", "mae", "max_error", "r2"], float]


class Params(StrictModel):
    """The whole of params.yaml."""

    device: Device
    prepare: PrepareParams
    train: TrainParams
    evaluate: EvaluateParams
    save: SaveParams

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.train.patience is not None and self.prepare.validation == 0:
            raise _conflict(
                "`train.patience` must be null with `prepare.validation` 0: stopping early needs"
                f" validation rows. Got {self.train.patience}."
            )
        if self.device == "mps" and self.prepare.dtype == "float64":
            raise _conflict("`prepare.dtype` must be float32 with `device` mps. Got float64.")
        return self


def load_params() -> Params:
    """Read params.yaml and check all of it.

    Raises:
        UserError: With one sentence per fault, sorted.
    """
    content = read_yaml(PARAMS)
    if not isinstance(content, dict):
        raise UserError(f"{PARAMS} must hold `name: value` lines. Got {_as_json(content)}.")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(_sentences(error.errors()))) from None


def declared_keys() -> list[str]:
    """Every key of params.yaml, as `section.key`, in the schema's order."""
    keys = []
    for name, field in Params.model_fields.items():
        keys.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, StrictModel):
            keys += [f"{name}.{key}" for key in field.annotation.model_fields]
    return keys


def _conflict(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("conflict", "{sentence}", {"sentence": sentence})


def _sentences(faults: list[ErrorDetails]) -> list[str]:
    missing = [_key(fault) for fault in faults if fault["type"] == "missing"]
    sentences, misspelt = [], set()
    for fault in faults:
        key, rule = _key(fault), fault["msg"].replace("Input should", "must", 1)
        rule = rule.replace("a valid string", "text, in quotes if it looks like a number")
        if fault["type"] == "conflict":
            sentences.append(rule)
        elif fault["type"] in {"extra_forbidden", "invalid_key"}:
            likely = _likely_key(key, missing)
            misspelt.add(likely)
            cure = f"Did you mean `{likely}`?" if likely else "Remove it."
            sentences.append(f"`{key}` is not a parameter. {cure}")
        elif fault["type"] == "model_type":
            sentences.append(
                f"`{key}` must hold `name: value` lines. Got {_as_json(fault['input'])}."
            )
        elif fault["type"] != "missing":
            sentences.append(f"`{key}` {rule}. Got {_as_json(fault['input'])}.")
    sentences += [f"`{key}` is missing. Add it." for key in missing if key not in misspelt]
    return [f"{PARAMS}: {sentence}" for sentence in sorted(sentences)]


def _key(fault: ErrorDetails) -> str:
    return ".".join(str(part) for part in fault["loc"] if part != "[key]")


def _likely_key(unknown: str, missing: list[str]) -> str | None:
    """The key that the user probably meant; a missing key comes before one of the same section."""
    section, _, name = unknown.rpartition(".")
    keys = {key.rpartition(".")[2]: key for key in declared_keys()}
    keys |= {
        key.rpartition(".")[2]: key for key in declared_keys() if key.startswith(f"{section}.")
    }
    keys |= {key.rpartition(".")[2]: key for key in missing}
    close = difflib.get_close_matches(name, keys, n=1)
    return keys[close[0]] if close else None


def _as_json(value: object) -> str:
    return cut(json.dumps(value, ensure_ascii=False, default=str))

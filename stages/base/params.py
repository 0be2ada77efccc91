"""The schema of params.yaml. The whole file is checked before any work."""

import difflib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from stages.base.errors import UserError, cut
from stages.base.files import PARAMS
from stages.base.yaml12 import read_yaml

LARGEST = 1e300  # of numbers; float64 still holds sums and multiples of them
DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:[0-9]{1,2})?")


def _must(rule: str, holds: Callable[[Any], object]) -> AfterValidator:
    def check(value: object) -> object:
        if not holds(value):
            raise ValueError(f"must {rule}")
        return value

    return AfterValidator(check)


def _is_source(source: str) -> bool:
    path = PurePosixPath(source)
    return path.name != "" and not path.is_absolute() and ".." not in path.parts


def _is_marker(marker: Any) -> bool:
    return isinstance(marker, str) or (type(marker) in {int, float} and abs(marker) <= LARGEST)


def is_delimiter(text: str) -> bool:
    """Whether a text can be the delimiter of a CSV file."""
    return len(text) == 1 and text.isascii() and text not in '"\r\n\0'


Count = Annotated[int, Field(ge=1, lt=10**9)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Number = Annotated[float, _must("lie between -1e300 and 1e300", lambda n: abs(n) <= LARGEST)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Columns = Annotated[
    list[str],
    _must("name at least one column, and each once", lambda names: 0 < len(names) == len({*names})),
]


class StrictModel(BaseModel):
    """A schema that accepts exactly its keys, with values of exactly their types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class PrepareParams(StrictModel):
    """The source of the rows, and how they are split. params.yaml explains each parameter."""

    source: Annotated[str, _must("be line, or a file or folder in data/raw", _is_source)]
    m: Number
    b: Number
    rows: Count
    noise: Annotated[Number, Field(ge=0)]
    features: Columns | None
    exclude: list[str]
    categories: list[str]
    target: str
    delimiter: Annotated[str, _must("be one ASCII character", is_delimiter)]
    decimal: Literal[".", ","]
    thousands: Literal[",", ".", " ", "'"] | None
    missing: Literal["error", "drop", "fill"]
    missing_values: list[Annotated[Any, _must("be text or a finite number", _is_marker)]]
    split: Literal["random", "ordered"]
    validation: Fraction
    test: Fraction
    dtype: Literal["float32", "float64"]
    seed: Seed


class TrainParams(StrictModel):
    """The network and its training. params.yaml explains each parameter."""

    hidden: list[Annotated[int, Field(ge=1, le=2**16)]]
    standardize: bool
    loss: str  # a name in stages/network.py; `train` checks it
    optimizer: Literal["sgd", "adam", "lbfgs"]
    lr: Annotated[float, Field(gt=0, le=1e6)]
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0, le=1e6)]
    schedule: Literal["constant", "cosine"]
    epochs: Count
    batch_size: Count | None
    patience: Count | None
    numerics: Literal["portable", "native"]
    seed: Seed


class EvaluateParams(StrictModel):
    """The plots. params.yaml explains each parameter."""

    plot_rows: Count


class SaveParams(StrictModel):
    """The release and its conditions. params.yaml explains each parameter."""

    onnx: bool
    require: dict[Literal["rmse", "mae", "max_error", "r2"], float]


class Params(StrictModel):
    """The whole of params.yaml."""

    device: Annotated[str, _must("be auto, cpu, cuda, cuda:1, mps or xpu", DEVICE.fullmatch)]
    prepare: PrepareParams
    train: TrainParams
    evaluate: EvaluateParams
    save: SaveParams


def load_params() -> Params:
    """Read params.yaml and check all of it.

    Raises:
        UserError: With one sentence per fault, sorted.
    """
    try:
        params = Params.model_validate(read_yaml(PARAMS))
        has_validation = params.prepare.validation > 0
        sentences = [*_prepare_conflicts(params.prepare)]
        sentences += _train_conflicts(params.train, has_validation)
    except ValidationError as error:
        sentences = [_sentence(fault) for fault in error.errors()]
    if sentences:
        raise UserError("\n".join(f"{PARAMS}: {sentence}" for sentence in sorted(sentences)))
    return params


def declared_keys() -> list[str]:
    """Every key of params.yaml, as `section` or `section.key`."""
    fields = Params.model_fields.items()
    sections = {name: getattr(field.annotation, "model_fields", {}) for name, field in fields}
    return [*sections, *(f"{name}.{key}" for name, keys in sections.items() for key in keys)]


def _prepare_conflicts(prepare: PrepareParams) -> Iterator[str]:
    """Yield a sentence for each pair of values that contradict each other."""
    held_out = prepare.validation + prepare.test
    if held_out >= 1:
        yield f"`prepare.validation` + `prepare.test` must be less than 1. Got {held_out:g}."
    for key in ("features", "exclude", "categories"):
        if prepare.target in (getattr(prepare, key) or []):
            yield f"`prepare.{key}` must not name the target, `{prepare.target}`. Remove it there."
    if both := sorted({*(prepare.features or [])} & {*prepare.exclude}):
        yield f"`prepare.exclude` must not name a feature, `{both[0]}`. Remove it in one place."
    if prepare.thousands == prepare.decimal:
        yield f'`prepare.thousands` and `prepare.decimal` must differ. Got "{prepare.decimal}".'


def _train_conflicts(train: TrainParams, has_validation: bool) -> Iterator[str]:
    is_lbfgs = train.optimizer == "lbfgs"
    for key, rule, applies in (
        ("momentum", "0 unless the optimizer is sgd", train.optimizer != "sgd"),
        ("weight_decay", "0 for the optimizer lbfgs", is_lbfgs),
        ("batch_size", "null for the optimizer lbfgs", is_lbfgs),
        ("patience", "null if `prepare.validation` is 0", not has_validation),
    ):
        if applies and getattr(train, key):
            yield f"`train.{key}` must be {rule}. Got {getattr(train, key)}."


def _sentence(fault: ErrorDetails) -> str:
    """What is wrong with one value or key, in our words."""
    key = ".".join(str(part) for part in fault["loc"] if part != "[key]")
    if fault["type"] == "missing":
        return f"`{key}` is missing. Add it."
    if fault["type"] in {"extra_forbidden", "invalid_key"}:
        return f"`{key}` is not a parameter. {_cure(key)}"
    rule = fault["msg"].removeprefix("Value error, ").replace("Input should", "must")
    rule = rule.replace("a valid string", "text, in quotes if it looks like a number")
    if fault["type"] == "model_type":
        rule = "must hold `name: value` lines"
    value = cut(json.dumps(fault["input"], ensure_ascii=False, default=str))
    return f"{f'`{key}` ' if key else ''}{rule}. Got {value}."


def _cure(unknown: str) -> str:
    """Name the keys that the user probably meant."""
    names = {key: key.rpartition(".")[2] for key in declared_keys()}
    close = difflib.get_close_matches(unknown.rpartition(".")[2], names.values(), n=1)
    likely = " or ".join(f"`{key}`" for key, name in names.items() if name in close)
    return f"Did you mean {likely}?" if likely else "Remove it."

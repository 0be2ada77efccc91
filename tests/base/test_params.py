from pathlib import Path

import pytest
import yaml

from stages.base.errors import UserError
from stages.base.params import declared_keys, load_params


def refusal() -> str:
    with pytest.raises(UserError) as error:
        load_params()
    return str(error.value)


def test_the_shipped_file_is_valid_and_holds_exactly_the_declared_keys(workspace):
    load_params()
    content = yaml.safe_load(Path("params.yaml").read_text())
    keys = list(content)
    keys += [f"{name}.{key}" for name in content if name != "device" for key in content[name]]
    assert sorted(keys) == sorted(declared_keys())


def test_every_parameter_of_the_shipped_file_says_what_it_means(workspace):
    for line in Path("params.yaml").read_text().splitlines():
        is_value = line and not line.startswith("#") and not line.endswith(":")
        assert not is_value or len(line.partition("  # ")[2]) >= 10, line


SENTENCES = [  # one for each rule
    ("train.lr", 0, "`train.lr` must be greater than 0. Got 0."),
    ("train.lr", 1e39, "`train.lr` must be less than or equal to 1000000. Got 1e+39."),
    ("train.lr", "x" * 1000, f'`train.lr` must be a valid number. Got "{"x" * 299}….'),
    ("train.lr", "0.1", '`train.lr` must be a valid number. Got "0.1".'),
    ("train.lr", True, "`train.lr` must be a valid number. Got true."),
    ("train.lr", float("inf"), "`train.lr` must be a finite number. Got Infinity."),
    ("train.epochs", 0, "`train.epochs` must be greater than or equal to 1. Got 0."),
    ("train.epochs", 10.0, "`train.epochs` must be a valid integer. Got 10.0."),
    ("train.hidden", 64, "`train.hidden` must be a valid list. Got 64."),
    ("train.hidden", [8, 0], "`train.hidden.1` must be greater than or equal to 1. Got 0."),
    ("train.standardize", 1, "`train.standardize` must be a valid boolean. Got 1."),
    ("train.optimizer", "sdg", "`train.optimizer` must be 'sgd', 'adam' or 'lbfgs'. Got \"sdg\"."),
    ("train", [1], "`train` must hold `name: value` lines. Got [1]."),
    (
        "prepare.features",
        ["x", "x"],
        '`prepare.features` must name at least one column, and each once. Got ["x", "x"].',
    ),
    (
        "prepare.target",
        3,
        "`prepare.target` must be text, in quotes if it looks like a number. Got 3.",
    ),
    ("prepare.delimiter", "é", '`prepare.delimiter` must be one ASCII character. Got "é".'),
    ("prepare.m", 1e301, "`prepare.m` must lie between -1e300 and 1e300. Got 1e+301."),
    ("prepare.rows", 10**9, "`prepare.rows` must be less than 1000000000. Got 1000000000."),
    (
        "prepare.missing_values",
        [10**400],
        "`prepare.missing_values.0` must be text or a finite number. Got 1000",
    ),
    (
        "prepare.source",
        "../secret.csv",
        '`prepare.source` must be line, or a file or folder in data/raw. Got "../secret.csv".',
    ),
    ("device", "gpu", '`device` must be auto, cpu, cuda, cuda:1, mps or xpu. Got "gpu".'),
    (
        "save.require",
        {"r3": 1.0},
        "`save.require.r3` must be 'rmse', 'mae', 'max_error' or 'r2'. Got \"r3\".",
    ),
    ("train.epoch", 5, "`train.epoch` is not a parameter. Did you mean `train.epochs`?"),
    ("prepare.lr", 5, "`prepare.lr` is not a parameter. Did you mean `train.lr`?"),
    ("lr", 5, "`lr` is not a parameter. Did you mean `train.lr`?"),
    (
        "prepare.sed",
        5,
        "`prepare.sed` is not a parameter. Did you mean `prepare.seed` or `train.seed`?",
    ),
    ("loader", 5, "`loader` is not a parameter. Remove it."),
]


@pytest.mark.parametrize(("name", "value", "sentence"), SENTENCES)
def test_params_reject_a_bad_value_in_one_sentence(change, name, value, sentence):
    change({name: value})
    text = refusal()
    assert text.startswith(f"params.yaml: {sentence}")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("device", ["cuda:", "cuda:128", "cpu:0"]),
        ("prepare.source", ["/etc/x.csv", "."]),
        ("prepare.features", [[]]),
        ("prepare.rows", [0]),
        ("prepare.noise", [-1]),
        ("prepare.delimiter", ["", "||"]),
        ("prepare.decimal", [";"]),
        ("prepare.thousands", ["", ",,"]),
        ("prepare.missing", ["skip"]),
        ("prepare.missing_values", [[True], [float("nan")]]),
        ("prepare.split", ["none"]),
        ("prepare.validation", [-0.1]),
        ("prepare.test", [1]),
        ("prepare.dtype", ["float16"]),
        ("train.hidden", [[10**13]]),
        ("train.optimizer", ["SGD"]),
        ("train.batch_size", [0]),
        ("train.patience", [0]),
        ("train.numerics", ["fast"]),
        ("train.seed", [-1]),
        ("evaluate.plot_rows", [0]),
        ("save.onnx", ["yes"]),
        ("save.require", [{"r2": "high"}]),
    ],
)
def test_a_value_outside_its_range_is_refused(change, name, values):
    for value in values:
        change({name: value})
        assert refusal().startswith(f"params.yaml: `{name}")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"prepare.validation": 0.8},
            "`prepare.validation` + `prepare.test` must be less than 1. Got 1.",
        ),
        (
            {"prepare.features": ["y"]},
            "`prepare.features` must not name the target, `y`. Remove it there.",
        ),
        (
            {"prepare.thousands": "."},
            '`prepare.thousands` and `prepare.decimal` must differ. Got ".".',
        ),
        (
            {"prepare.exclude": ["y"]},
            "`prepare.exclude` must not name the target, `y`. Remove it there.",
        ),
        (
            {"prepare.features": ["x"], "prepare.exclude": ["x"]},
            "`prepare.exclude` must not name a feature, `x`. Remove it in one place.",
        ),
        (
            {"train.optimizer": "lbfgs", "train.batch_size": 32},
            "`train.batch_size` must be null for the optimizer lbfgs. Got 32.",
        ),
        (
            {"train.patience": 5, "prepare.validation": 0},
            "`train.patience` must be null if `prepare.validation` is 0. Got 5.",
        ),
    ],
)
def test_params_reject_values_that_contradict_each_other(change, changes, sentence):
    change(changes)
    assert refusal() == f"params.yaml: {sentence}"


def test_all_faults_are_named_at_once_and_sorted(change):
    change({"train.lr": -1, "prepare.rows": "many", "device": "gpu", "train.epoch": 3})
    assert [line.split("`")[1] for line in refusal().splitlines()] == [
        "device",
        "prepare.rows",
        "train.epoch",
        "train.lr",
    ]


@pytest.mark.parametrize("key", ["device", "train", "train.lr"])
def test_a_missing_key_is_named(workspace, key):
    content = yaml.safe_load(Path("params.yaml").read_text())
    *sections, name = key.split(".")
    section = content
    for part in sections:
        section = section[part]
    del section[name]
    Path("params.yaml").write_text(yaml.safe_dump(content))
    assert refusal() == f"params.yaml: `{key}` is missing. Add it."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "params.yaml: `device` is missing. Add it."),
        ("- 1\n", "params.yaml: must hold `name: value` lines. Got [1]."),
    ],
)
def test_a_file_that_is_not_a_mapping_is_refused(workspace, text, sentence):
    Path("params.yaml").write_text(text)
    assert refusal().startswith(sentence)


def test_a_missing_file_is_refused(workspace):
    Path("params.yaml").unlink()
    assert refusal() == "params.yaml does not exist. Run this in the project's folder."


def test_numbers_are_typed_as_dvc_types_them(workspace):
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("lr: 0.1 ", "lr: 1e-3 "))
    assert load_params().train.lr == 0.001

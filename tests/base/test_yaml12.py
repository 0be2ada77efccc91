import math

import pytest
import yaml
from dvc.utils.serialize import ParseError
from dvc.utils.serialize import parse_yaml as parse_as_dvc
from hypothesis import given
from hypothesis import strategies as st

from stages.base.errors import UserError
from stages.base.yaml12 import parse_yaml, read_yaml

TRAPS = [
    "1e-3", "1E5", "1e+5", ".5", ".5e3", ".5e+3", "-.5", "+.5", "5.", "010", "09", "0o10", "0o8",
    "-0o17", "0x1F", "0b11", "1_000", "_1", "1_", "1_0.5_0", "no", "No", "NO", "yes", "on", "off",
    "y", "n", "true", "True", "TRUE", "tRue", "false", "~", "null", "Null", "NULL", "nUll", "inf",
    "nan", ".inf", "-.inf", "+.Inf", ".nan", ".NaN", "Infinity", "1:30", "190:20:30",
    "190:20:30.15", "2001-01-01", "2001-1-1", "0", "-0", "+0", "-0.0", "00", "08.5", "1e400",
    "1e5_", "1_e5", "1.e5", "+1e3", "0.1.2", "'1'", '"1e3"', "'no'", '"null"', "''", "text", "-",
    "+", ".", "..", "=x", "<<x", "0x", "0b", "0o",
]  # fmt: skip

REFUSED = object()

plain_text = st.text(alphabet="0123456789eE+-._oxbnulfaintrysNIA~:", min_size=1, max_size=8)
scalars = st.one_of(
    st.sampled_from(TRAPS),
    plain_text,
    st.floats().map(repr),
    st.integers().map(str),
    st.text(alphabet="ab 1.e", max_size=5).map(lambda text: f'"{text}"'),
)
keys = st.one_of(st.sampled_from(["lr", "m", "b", "no", "1", "1e-3", "~", "'a'"]), plain_text)


def read_both(text: str) -> tuple[object, object]:
    """The values that our reader and DVC's return; REFUSED if a reader refuses the text."""
    try:
        ours = parse_yaml(text)
    except (yaml.YAMLError, ValueError, TypeError):
        ours = REFUSED
    try:
        dvcs = parse_as_dvc(text, "params.yaml")
    except (ParseError, ValueError, IndexError):
        dvcs = REFUSED
    return ours, dvcs


def same(one: object, other: object) -> bool:
    """Equal in type and value; NaN equals NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(
            same(key, other_key) and same(value, other_value)
            for (key, value), (other_key, other_value) in pairs
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("scalar", TRAPS)
def test_a_trap_means_the_same_as_to_dvc(scalar):
    ours, dvcs = read_both(f"value: {scalar}\n")
    assert same(ours, dvcs), (ours, dvcs)


@given(st.lists(st.tuples(keys, scalars), min_size=1, max_size=5))
def test_a_mapping_means_the_same_as_to_dvc(pairs):
    ours, dvcs = read_both("".join(f"{key}: {value}\n" for key, value in pairs))
    assert ours is REFUSED or same(ours, dvcs), (ours, dvcs)


@given(st.lists(scalars, max_size=4), st.lists(st.tuples(keys, scalars), max_size=4))
def test_nested_and_flow_collections_mean_the_same_as_to_dvc(items, pairs):
    block = "".join(f"  {key}: {value}\n" for key, value in pairs)
    ours, dvcs = read_both(f"flow: [{', '.join(items)}]\nblock:\n{block}last: 1 # comment\n")
    assert ours is REFUSED or same(ours, dvcs), (ours, dvcs)


@pytest.mark.parametrize("text", ["v: [a:, x]", "v: {a: }", "v: {a?: 1}", "v: [a?, x]", "v: [:]"])
def test_punctuation_in_flow_collections_means_the_same_as_to_dvc(text):
    ours, dvcs = read_both(text)
    assert ours is REFUSED or same(ours, dvcs), (ours, dvcs)


def test_the_values_differ_from_those_of_plain_pyyaml():
    assert parse_yaml("[1e-3, 010, 0o10, no, 1:30]") == [0.001, 10, 8, "no", "1:30"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "a: 1\nb: 2\na: 3\n",
            "params.yaml, line 3: the key `a` is given twice. Correct the file.",
        ),
        ("a:\n  b: 1\n  b: 2\n", "params.yaml, line 3: the key `b` is given twice."),
        ("a: [1\n", "params.yaml, line 2: did not find expected ',' or ']'."),
        (
            "a: !!python/name:os.system x\n",
            "params.yaml, line 1: could not determine a constructor",
        ),
        ("a: {{ b }}\n", "params.yaml: not valid YAML: unhashable type: 'dict'."),
    ],
)
def test_what_dvc_refuses_is_refused_with_its_line(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    path = tmp_path.relative_to(tmp_path) / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_yaml(path)
    assert str(error.value).startswith(sentence)

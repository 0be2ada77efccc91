"""The model card: its programs run as printed, and no name of a column breaks it."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from stages import evaluate, prepare, save, train
from stages.base.files import RELEASE
from stages.model.model import Model
from stages.release.card import card
from stages.release.manifest import Manifest
from tests.conftest import command

HOSTILE = [
    "`a`",
    "b|c",
    "<script>alert(1)</script>",
    "d\"e'f",
    "g\nh",
    "![i](j)",
    "$k$ ${l}",
    "größe 温度",
    "m\\n",
    " o ",
    "\u202eq\u200b",
    "```\n# r",
    "__import__('os')",
    "--- & &amp;",
]


@pytest.fixture
def released(change):
    """Release a model without ONNX, and return its card."""

    def run(changes):
        change(changes | {"save.onnx": False})
        for stage in (prepare, train, evaluate, save):
            stage.main()
        return (RELEASE / "README.md").read_text()

    return run


def programs(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def require_equal_predictions(release, folder, rtol):
    """Run every program of the card as printed, in a copy of the release, and compare."""
    shutil.copytree(release, folder)
    model = Model.load(folder / "model.safetensors")
    manifest = json.loads((folder / "model.json").read_text())
    means = torch.tensor([[column["mean"] for column in manifest["inputs"]]], dtype=model.dtype)
    expected = model(means).tolist()
    for program in programs((folder / "README.md").read_text()):
        result = command(folder, "python", "-W", "error", "-c", program)
        assert result.returncode == 0, result.stderr
        np.testing.assert_allclose(json.loads(result.stdout), expected, rtol=rtol)


def test_the_default_card_shows_formula_ranges_scores_and_figure_and_its_programs_run(
    project, tmp_path
):
    release = project / RELEASE
    text = (release / "README.md").read_text()
    assert len(programs(text)) == 3
    require_equal_predictions(release, tmp_path / "copy", 1e-6)  # float32
    assert "y = 0.29643675044157475 + 0.7054117263861874 · x" in text
    assert "| `x` | 0.001 to 0.999 |" in text
    assert "| 100 validation | this model | 0.0501" in text
    assert "| 200 test | this model | 0.0496839 | 0.0390159 | 0.185881 | 0.940089 |" in text
    assert "| 200 test | least squares | 0.0496839 |" in text
    assert "| 700 train | this model | 0.0484079 |" in text
    assert "![Loss over epochs, fit and residuals](figure.svg)" in text
    assert (release / "figure.svg").read_bytes().startswith(b"<?xml")


def test_the_programs_of_a_network_with_categories_predict_the_same_numbers(
    released, raw, tmp_path
):
    origins = ["Europe", "Japan", "USA"]
    rows = [f"{i},{origins[i % 3]},{i * i % 17}" for i in range(60)]
    raw("cars.csv", "\n".join(["a,origin,t", *rows]))
    names = {"prepare.source": "cars.csv", "prepare.target": "t", "prepare.dtype": "float64"}
    text = released(names | {"train.hidden": [8, 4], "train.epochs": 3})
    require_equal_predictions(RELEASE, tmp_path / "copy", 1e-12)  # float64
    assert "from 4 inputs. It is a network of 8-4 hidden units, trained on " in text
    assert "| `origin=Europe` | 0 to 1 |" in text
    assert "An input `column=category` is 1 if the column has this category, else 0." in text


def test_a_calibration_has_the_scores_of_its_training_rows(released, tmp_path):
    names = {"prepare.source": "norris.csv", "prepare.dtype": "float64"}
    text = released(names | {"prepare.validation": 0, "prepare.test": 0})
    assert len(programs(text)) == 2
    assert "ONNX" not in text
    require_equal_predictions(RELEASE, tmp_path / "copy", 1e-12)  # float64
    assert "| 36 train | this model |" in text
    assert "| 36 train | least squares |" in text
    assert "test |" not in text


def with_names(names, target, fill=None):
    """Return the card of a linear model with these columns."""
    column = {"type": "float32", "minimum": 0.0, "maximum": 1.0, "mean": 0.5}
    scores = {"rows": 9, "rmse": 1.0, "mae": 1.0, "max_error": 1.0}
    slopes = [0.1 * i for i in range(len(names))]
    learned = {"intercept": 1.0} | dict(zip(names, slopes, strict=True))
    if len(names) == 1:
        learned = {"b": 1.0, "m": 2.0}
    content = {
        "inputs": [column | {"name": name} for name in names],
        "target": column | {"name": target},
        "categories": {},
        "fill": fill or {},
        "architecture": {"network": "a linear model", "widths": [1, 1]},
        "not_portable": [],
        "trained_on": "cuda",
        "versions": {"torch": "2.13.0"},
        "parameters": {},
        "scores": {"train": scores, "least_squares": {"train": scores}, "learned": learned},
        "data": {},
        "files": {},
        "proof": {"split": "train", "rows": 9, "difference_at_most": 1e-6},
    }
    return card(Manifest.model_validate(content))


def test_a_model_of_filled_cells_says_what_stands_for_a_missing_one():
    sentence = "For a missing\nnumber, give the mean of the training rows, which is its `fill` in"
    assert sentence in with_names(["a"], "t", {"a": 0.5})
    assert "missing" not in with_names(["a"], "t")


def test_the_category_of_missing_cells_is_explained(released, raw):
    raw(
        "cars.csv",
        "a,origin,t\n" + "".join(f"{i},{'' if i % 3 else 'USA'},1{i}\n" for i in range(60)),
    )
    names = {"prepare.source": "cars.csv", "prepare.target": "t", "prepare.missing": "fill"}
    text = released(names | {"train.epochs": 3})
    assert "this category, else 0; `column=` stands for a missing cell." in " ".join(text.split())


def test_no_name_breaks_the_card_or_gets_into_a_program():
    plain = with_names([f"n{i}" for i in range(len(HOSTILE))], "t")
    text = with_names(HOSTILE, HOSTILE[-3])
    assert programs(text) == programs(plain)
    assert text.count("\n") == plain.count("\n")
    assert text.count("```") == plain.count("```")
    for line, expected in zip(text.splitlines(), plain.splitlines(), strict=True):
        assert line.count("|") == expected.count("|")
        assert line.count("`") == expected.count("`")
        assert line.isprintable()
    assert "| `größe 温度` |" in text
    assert "| `b\\u{7c}c` |" in text


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_the_formula(name):
    text = with_names([name], name)
    formula = re.search(r"```text\n(.*)\n```", text)[1]
    assert formula.startswith(name[0] if name[0].isalpha() else formula[0])
    assert " = 1.0 + 2.0 · " in formula


def test_a_missing_score_is_a_dash():
    assert "| 9 train | this model | 1 | 1 | 1 | – |" in with_names(["x"], "t")

import importlib.util
import re

import pandas as pd
import pytest
import torch

from stages import evaluate, prepare, train
from stages.base.files import EVALUATION, HISTORY, PREPARED, WEIGHTS, read_json
from stages.model.model import Model
from tests.conftest import command
from tests.verify import ROOT

SCRIPT = ROOT / "docs/textbook.py"


@pytest.fixture(scope="module")
def textbook():
    spec = importlib.util.spec_from_file_location("textbook", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def prepared(workspace):
    """Training, validation and test rows of the pipeline's default run."""
    prepare.main()
    return [
        pd.read_parquet(PREPARED / f"{name}.parquet") for name in ("train", "validation", "test")
    ]


def test_the_script_runs_alone_and_prints_the_line_that_it_learned(tmp_path):
    result = command(tmp_path, "python", str(SCRIPT), "files")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "rows around y = 0.7·x + 0.3: 700 training, 100 validation, 200 test"
    [learned] = [line for line in lines if line.startswith("learned: y = ")]
    m, b = map(float, learned.removeprefix("learned: y = ").split("·x + "))
    assert m == pytest.approx(0.7, abs=0.02)  # three standard errors of 700 noisy rows
    assert b == pytest.approx(0.3, abs=0.01)
    assert "loaded again: same predictions" in lines
    assert {path.name for path in (tmp_path / "files").iterdir()} == {"history.csv", "model.pt"}
    assert [*tmp_path.iterdir()] == [tmp_path / "files"]


def test_on_the_same_rows_the_textbook_learns_what_the_pipeline_learns(textbook, prepared):
    training, validation, test = prepared
    train.main()
    evaluate.main()
    model, history = textbook.train(training, validation)
    b, m = Model.load(WEIGHTS).line()
    # Rounding alone differs: float32 operations in another order.
    assert model.weight.item() == pytest.approx(m, abs=1e-5)
    assert model.bias.item() == pytest.approx(b, abs=1e-5)
    pd.testing.assert_frame_equal(history, pd.read_csv(HISTORY), rtol=1e-5)
    expected = read_json(EVALUATION)["test"]
    scores = textbook.evaluate(model, test)
    for name, key in {"RMSE": "rmse", "MAE": "mae", "R²": "r2"}.items():
        assert scores[name] == pytest.approx(expected[key], rel=1e-5)


def test_each_row_is_in_one_split(textbook):
    data = textbook.make_data(50)
    parts = textbook.split(data)
    assert [len(part) for part in parts] == [35, 5, 10]
    pd.testing.assert_frame_equal(pd.concat(parts).sort_index(), data)


def test_a_loaded_model_predicts_the_same_bits(textbook, tmp_path):
    training, validation, test = textbook.split(textbook.make_data(50))
    model, _ = textbook.train(training, validation)
    textbook.save(model, tmp_path / "model.pt")
    loaded = textbook.load(tmp_path / "model.pt")
    assert loaded is not model
    assert torch.equal(textbook.predict(loaded, test), textbook.predict(model, test))


@pytest.mark.parametrize("path", ["docs/textbook.py", "stages/train.py"])
def test_both_loops_have_the_five_moves_of_a_tutorial(path):
    source = (ROOT / path).read_text()
    assert re.findall(r"# (\d)\. ", source) == [*"12345"]
    loop = source[source.index("for epoch in ") :]
    moves = [".train()", ".zero_grad()", "backward(", ".step(", ".eval()"]
    places = [loop.find(move) for move in moves]
    assert -1 not in places
    assert places == sorted(places)

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from stages import evaluate, prepare, train
from stages.base.errors import UserError
from stages.base.files import EVALUATION, HISTORY, PLOTS, PREDICTIONS, PREPARED
from tests.conftest import ROOT

REFERENCE = json.loads((ROOT / "tests/data/reference.json").read_text())
LBFGS = {"train.optimizer": "lbfgs", "train.lr": 1.0, "train.epochs": 60}


@pytest.fixture
def evaluation(change, raw):
    """Prepare, train and evaluate with the given parameters; return evaluation.json."""

    def run(changes, table=None):
        if table:
            raw(f"{table}.csv", (ROOT / f"tests/data/{table}.csv").read_bytes())
            changes = {**changes, "prepare.source": f"{table}.csv"}
        change(changes)
        prepare.main()
        train.main()
        evaluate.main()
        return json.loads(EVALUATION.read_text())

    return run


def test_the_default_run_learns_the_exact_line_which_is_near_the_true_one(evaluation, capsys):
    result = evaluation({})
    learned, optimum = result["learned"], result["least_squares"]
    for name, true in [("m", 0.7), ("b", 0.3)]:
        assert abs(learned[name] - optimum["coefficients"][name]) < 1e-4
        assert abs(optimum["coefficients"][name] - true) < 3 * optimum["std_errors"][name]
    assert sorted(result) == ["learned", "least_squares", "test", "train", "validation"]
    assert sorted(optimum) == ["coefficients", "std_errors", "test", "train", "validation"]
    for scored in (result, optimum):
        rows = [scored[name]["rows"] for name in ("train", "validation", "test")]
        assert rows == [700, 100, 200]
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "evaluate: model: y = 0.7054·x + 0.2964; RMSE 0.04841 train, 0.05016 validation, 0.04968"
        " test",
        "evaluate: exact least squares: y = 0.7054·x + 0.2964; RMSE 0.04841 train, 0.05016"
        " validation, 0.04968 test",
    ]


def test_each_rows_scores_are_those_of_their_own_split(evaluation):
    result = evaluation({"train.epochs": 5})
    m, b = result["learned"]["m"], result["learned"]["b"]
    for name in ("train", "validation", "test"):
        rows = pd.read_parquet(PREPARED / f"{name}.parquet").astype("float64")
        errors = m * rows["x"] + b - rows["y"]
        expected = np.sqrt((errors**2).mean())
        assert result[name]["rmse"] == pytest.approx(expected, rel=1e-6)  # float32


def test_norris_agrees_with_nists_certified_values(evaluation, capsys):
    certified = REFERENCE["norris"]
    result = evaluation(
        {
            "prepare.source": "norris.csv",
            "prepare.dtype": "float64",
            "prepare.validation": 0,
            "prepare.test": 0,
        }
    )
    for name, key in [("m", "B1"), ("b", "B0")]:
        value, error = certified["coefficients"][key], certified["standard_errors"][key]
        assert result["learned"][name] == pytest.approx(value, rel=1e-11)
        assert result["least_squares"]["coefficients"][name] == pytest.approx(value, rel=1e-12)
        assert result["least_squares"]["std_errors"][name] == pytest.approx(error, rel=1e-12)
    assert result["train"]["r2"] == pytest.approx(certified["r_squared"], rel=1e-14)
    assert result["train"] == pytest.approx(result["least_squares"]["train"], rel=1e-12)
    assert "test" not in result
    assert "evaluate: model: y = 1.002·x − 0.2623; RMSE 0.8599 train\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "target", "low", "high"),
    [("diabetes", "progression", 0.31, 0.67), ("auto_mpg", "mpg", 0.71, 0.90)],
)
def test_a_linear_model_scores_what_its_exact_optimum_scores(evaluation, table, target, low, high):
    result = evaluation({"prepare.target": target, **LBFGS}, table)
    assert result["test"]["rmse"] == pytest.approx(
        result["least_squares"]["test"]["rmse"], rel=1e-3
    )
    assert low < result["test"]["r2"] < high  # the reference's mean over five folds ± 2 deviations
    names = {"intercept", *REFERENCE[table]["coefficients"]}
    assert set(result["learned"]) == names
    assert set(result["least_squares"]["coefficients"]) == names
    assert set(result["least_squares"]["std_errors"]) == names


@pytest.mark.parametrize(("table", "target"), [("diabetes", "progression"), ("auto_mpg", "mpg")])
def test_training_on_all_rows_of_a_table_reaches_the_reference(evaluation, table, target):
    everything = {"prepare.validation": 0, "prepare.test": 0, "prepare.dtype": "float64"}
    result = evaluation({"prepare.target": target, **everything, **LBFGS}, table)
    for name, value in REFERENCE[table]["coefficients"].items():
        error = REFERENCE[table]["standard_errors"][name]
        assert abs(result["learned"][name] - value) < 0.01 * error
    scores = result["least_squares"]["train"]
    assert scores["r2"] == pytest.approx(REFERENCE[table]["r_squared"], rel=1e-12)
    assert scores["rmse"] == pytest.approx(REFERENCE[table]["rmse"], rel=1e-12)


def test_a_64_64_network_beats_the_line_on_auto_mpg(evaluation, capsys):
    result = evaluation(
        {
            "prepare.target": "mpg",
            "train.hidden": [64, 64],
            "train.optimizer": "adam",
            "train.lr": 0.003,
            "train.batch_size": 32,
            "train.epochs": 300,
            "train.patience": 30,
        },
        "auto_mpg",
    )
    assert result["test"]["r2"] >= 0.85
    assert result["test"]["rmse"] < result["least_squares"]["test"]["rmse"]
    assert "learned" not in result
    assert "a network of 64-64 hidden units from 7 features to mpg" in capsys.readouterr().out


def test_left_out_columns_are_named_and_have_no_coefficients(evaluation, raw, capsys):
    rng, origins = np.random.default_rng(0), ["Europe", "Japan", "USA"]
    a, noise = rng.normal(size=(2, 60))
    rows = [f"{a[i]},{a[i] / 2},{origins[i % 3]},{a[i] + i % 3 + noise[i]}" for i in range(60)]
    raw("cars.csv", "\n".join(["a,half,origin,t", *rows]))
    result = evaluation({"prepare.source": "cars.csv", "prepare.target": "t"})["least_squares"]
    for key in ("coefficients", "std_errors"):
        assert sorted(result[key]) == ["a", "intercept", "origin=Japan", "origin=USA"]
    assert result["reference_categories"] == ["origin=Europe"]
    assert result["dependent_columns"] == {"half": ["a"]}
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "evaluate: `half` depends on `a`; least squares leaves it out"


def test_two_rows_have_no_standard_errors(evaluation):
    result = evaluation({"prepare.rows": 2, "prepare.validation": 0, "prepare.test": 0})
    assert sorted(result["least_squares"]) == ["coefficients", "train"]


@pytest.mark.parametrize(("plot_rows", "expected"), [(1, 1), (60, 60), (1000, 200)])
def test_a_plot_has_at_most_plot_rows_at_even_distances(evaluation, plot_rows, expected):
    evaluation({"evaluate.plot_rows": plot_rows})
    sample = pd.read_csv(PLOTS / "fit.csv")
    test = pd.read_parquet("data/prepared/test.parquet").astype("float64")
    chosen = test.iloc[np.arange(expected) * 200 // expected].sort_values("x")
    assert sample["x"].tolist() == chosen["x"].tolist()
    assert sample["actual"].tolist() == chosen["y"].tolist()
    assert sample["residual"].tolist() == (sample["actual"] - sample["predicted"]).tolist()
    assert (sample["least_squares"] - sample["predicted"]).abs().max() < 1e-4
    assert {*sample["x_label"], *sample["target"]} == {"x", "y"}


def test_a_plot_of_several_features_is_over_the_prediction(evaluation):
    evaluation({"prepare.target": "mpg", "train.epochs": 5}, "auto_mpg")
    sample = pd.read_csv(PLOTS / "fit.csv")
    assert sample["x"].tolist() == sorted(sample["predicted"])
    assert sample["least_squares"].isna().all()
    assert {*sample["x_label"], *sample["target"]} == {"mpg, predicted", "mpg"}


def test_other_files_beside_the_plots_stay(evaluation):
    PLOTS.mkdir(parents=True)
    (PLOTS / "mine.svg").write_text("mine")
    evaluation({})
    assert (PLOTS / "mine.svg").read_text() == "mine"
    names = ["figure.svg", "fit.csv", "mine.svg"]
    assert sorted(path.name for path in PLOTS.iterdir()) == names


def test_a_figure_that_cannot_be_drawn_leaves_the_old_results(evaluation):
    evaluation({})
    before = {path: path.read_bytes() for path in [EVALUATION, *PLOTS.iterdir()]}
    HISTORY.unlink()
    with pytest.raises(FileNotFoundError, match=str(HISTORY)):
        evaluate.main()
    assert {path: path.read_bytes() for path in [EVALUATION, *PLOTS.iterdir()]} == before


def test_without_a_trained_model_there_is_nothing_to_evaluate(workspace):
    prepare.main()
    with pytest.raises(UserError) as error:
        evaluate.main()
    assert str(error.value) == (
        "models/trained/weights.safetensors does not exist. Run `dvc repro`, or `python -m"
        " stages.train`."
    )


@pytest.mark.parametrize("other", [{"prepare.target": "x"}, {"prepare.seed": 1}])
def test_a_model_that_was_trained_on_other_rows_is_not_evaluated(evaluation, change, other):
    evaluation({})
    before = EVALUATION.read_bytes()
    change(other)
    prepare.main()
    with pytest.raises(UserError) as error:
        evaluate.main()
    assert str(error.value) == (
        "models/trained/weights.safetensors was not trained on the rows in data/prepared. Run"
        " `dvc repro`."
    )
    assert EVALUATION.read_bytes() == before


def test_a_table_of_several_blocks_is_evaluated(evaluation):
    result = evaluation({"prepare.rows": 1_500_000, "prepare.test": 0.5, "train.epochs": 30})
    assert result["test"]["rows"] == 750_000
    test, predictions = pq.ParquetFile(PREPARED / "test.parquet"), pq.ParquetFile(PREDICTIONS)
    assert predictions.num_row_groups == test.num_row_groups > 1
    expected = result["learned"]["m"] * test.read()["x"].to_numpy() + result["learned"]["b"]
    assert np.allclose(predictions.read()["predicted"].to_numpy(), expected, atol=1e-6)  # float32
    assert abs(result["learned"]["m"] - result["least_squares"]["coefficients"]["m"]) < 0.01

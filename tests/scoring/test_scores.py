import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.base.errors import UserError
from stages.rows import split as split_module
from stages.rows.split import Split, SplitWriter
from stages.scoring.scores import scores


@pytest.fixture
def split_of(tmp_path):
    def write(inputs, targets, dtype="float64"):
        writer = SplitWriter(tmp_path / "test.parquet", ["x", "t"], dtype)
        writer.write(np.column_stack([inputs, targets]).astype(dtype))
        writer.close()
        return Split(tmp_path / "test.parquet")

    return write


def test_scores_are_their_textbook_formulas(split_of):
    split = split_of([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 5.0, 9.0])
    result = scores(split, {"twice": lambda inputs: 2 * inputs, "zero": torch.zeros_like})
    assert result["twice"] == {
        "rows": 4,
        "rmse": math.sqrt(2 / 4),
        "mae": 2 / 4,
        "max_error": 1.0,
        "r2": 1 - 2 / 26,
    }
    assert result["zero"] == {
        "rows": 4,
        "rmse": math.sqrt(126 / 4),
        "mae": 5.0,
        "max_error": 9.0,
        "r2": 1 - 126 / 26,
    }


def test_scores_agree_with_independent_arithmetic_over_several_blocks(split_of):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=600_000)
    targets = 1e6 + 3 * inputs + rng.normal(size=600_000)
    result = scores(split_of(inputs, targets), {"m": lambda x: 3 * x + 1e6})["m"]
    residuals = 3 * inputs + 1e6 - targets
    spread = math.fsum(((targets - math.fsum(targets) / 600_000) ** 2).tolist())
    assert result["rmse"] == pytest.approx(
        math.sqrt(math.fsum((residuals**2).tolist()) / 600_000), rel=1e-14
    )
    assert result["mae"] == pytest.approx(
        math.fsum(np.abs(residuals).tolist()) / 600_000, rel=1e-14
    )
    assert result["max_error"] == np.abs(residuals).max()
    assert result["r2"] == pytest.approx(1 - math.fsum((residuals**2).tolist()) / spread, rel=1e-12)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32)),
        min_size=2,
        max_size=200,
        unique=True,
    )
)
def test_scores_are_numpys_for_any_rows(split_of, rows):
    inputs, targets = np.array(rows).T
    split = split_of(inputs, targets)
    result = scores(split, {"m": lambda x: x})["m"]
    errors = inputs - targets
    assert result["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-12)
    assert result["mae"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-12)
    assert result["max_error"] == np.max(np.abs(errors))
    spread = np.sum((targets - targets.mean()) ** 2)
    if spread > 1e-6 * np.sum(targets**2):  # else numpy's own rounding decides
        expected = 1 - np.sum(errors**2) / spread
        assert result["r2"] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_number_of_threads_changes_no_bit_of_a_score(split_of, monkeypatch, use_threads):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(2, 50_000)) ** 3
    monkeypatch.setattr(split_module, "block_rows", lambda num_columns: 64)
    split, found = split_of(inputs, targets), []
    for num_threads in (1, 2, 5):
        use_threads(num_threads)
        found.append(scores(split, {"m": lambda x: 0.5 * x}))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("prediction", [math.nan, math.inf, 1e200])
def test_predictions_that_cannot_be_scored_are_refused(split_of, prediction):
    split = split_of([1.0, 2.0], [5.0, 6.0])
    with pytest.raises(UserError) as error:
        scores(split, {"m": lambda x: torch.full_like(x, prediction)})
    assert str(error.value) == (
        f"evaluate: errors on {split.path} are too large to square. Lower `train.lr` or rescale the"
        " table's columns."
    )


@pytest.mark.parametrize("value", [0.1, 0.3, 1e6, -1e-300])
def test_equal_targets_have_no_r2(split_of, value):
    result = scores(split_of(np.arange(200.0), np.full(200, value)), {"m": torch.zeros_like})
    assert sorted(result["m"]) == ["mae", "max_error", "rmse", "rows"]


def test_r2_keeps_its_digits_far_from_zero(split_of):
    rng = np.random.default_rng(0)
    noise = rng.integers(-50, 50, 200).astype(float)  # exact, also beside the offset
    inputs = 1e10 + np.arange(200.0)
    result = scores(split_of(inputs, inputs + noise), {"m": lambda x: x})["m"]
    targets = np.arange(200.0) + noise
    assert result["r2"] == pytest.approx(
        1 - (noise**2).sum() / ((targets - targets.mean()) ** 2).sum()
    )


def test_an_r2_beyond_float64_is_left_out(split_of):
    split = split_of([1.0, 2.0], [1e-150, 2e-150])
    assert "r2" not in scores(split, {"m": lambda x: torch.full_like(x, 1e10)})["m"]


def test_several_blocks_are_scored_in_threads_without_gradients(split_of, use_threads):
    use_threads(2)
    model = torch.nn.Linear(1, 1, dtype=torch.float64)
    values = np.random.default_rng(0).normal(size=(2, 600_000))
    assert scores(split_of(*values), {"m": model})["m"]["rows"] == 600_000


def test_each_block_is_predicted_once_and_kept_in_order(split_of, monkeypatch, use_threads):
    monkeypatch.setattr(split_module, "block_rows", lambda num_columns: 64)
    use_threads(3)
    inputs, calls, kept = np.arange(1000.0), [], []

    def predict(block):
        calls.append(block[0].item())
        return 2 * block

    scores(split_of(inputs, inputs), {"m": predict, "zero": torch.zeros_like}, kept.append)
    assert sorted(calls) == [*range(0, 1000, 64)]
    assert np.concatenate(kept).tolist() == (2 * inputs).tolist()

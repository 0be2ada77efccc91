"""`make compare`: who is ranked beside whom, by which rows."""

import json
import re
import shutil

import pytest

from tests.conftest import command


@pytest.fixture
def compare(quick, tmp_path):
    """Run experiments, each with the given settings, and return what `make compare` prints."""
    folder = shutil.copytree(quick, tmp_path / "copy")

    def run(*experiments):
        for name, *settings in experiments:
            words = [word for setting in settings for word in ("-S", setting)]
            end = command(folder, "dvc", "exp", "run", "--name", name, *words)
            assert end.returncode == 0, end.stderr
            command(folder, "git", "restore", ".")
            assert command(folder, "dvc", "checkout").returncode == 0
        end = command(folder, "python", ".ci/compare.py")
        assert end.returncode == 0, end.stderr
        return folder, [re.split(r"  +", line.strip()) for line in end.stdout.splitlines()]

    return run


def test_without_experiments_the_scores_of_the_workspace_are_shown(compare):
    folder, lines = compare()
    scores = json.loads((folder / "metrics/evaluation.json").read_text())
    rmse = [f"{scores[split]['rmse']:.6g}" for split in ("validation", "train", "test")]
    assert lines[1] == ["model", "validation.rmse", "train.rmse", "test.rmse"]
    assert lines[2] == ["workspace", *rmse]


def test_models_are_ranked_by_validation_rows_and_only_with_those_of_the_same_rows(compare):
    _, lines = compare(
        ("slow", "train.lr=0.001"), ("slower", "train.lr=0.0005"), ("other", "prepare.target=x"),
        ("calibration", "prepare.validation=0"),
    )  # fmt: skip
    assert lines[0][0].startswith("RMSE of `y`, ranked by the validation rows")
    assert lines[1][-1] == "test.rmse"
    assert [line[0] for line in lines[2:6]] == ["workspace", "main", "slow", "slower"]
    others = "".join(line[0] for line in lines[6:])
    apart = "Not comparable with the models above, because of other rows: RMSE of"
    assert f"{apart} `x`, ranked by the validation rows" in others
    assert (
        f"{apart} `y`, ranked by the train rows, since there are no validation rows: a larger"
        " network looks better than it is"
    ) in others

"""The report on a pull request, of two real commits."""

import shutil

import pytest

from tests.conftest import IDENTITY, command


@pytest.fixture
def branch(quick, tmp_path):
    """Change a parameter of the committed project, run, commit, and report against the base."""
    folder = shutil.copytree(quick, tmp_path / "copy")

    def run(old, new):
        params = folder / "params.yaml"
        text = params.read_text()
        assert old in text
        params.write_text(text.replace(old, new))
        for words in (["dvc", "repro"], ["git", *IDENTITY, "commit", "-qam", "Change"]):
            end = command(folder, *words)
            assert end.returncode == 0, end.stderr
        return command(folder, "python", ".ci/report.py", "HEAD~1", "https://host/figure.svg")

    return run


def test_a_report_shows_parameters_metrics_at_full_precision_and_the_figure(branch):
    end = branch("lr: 0.1 ", "lr: 0.05 ")
    assert end.returncode == 0, end.stdout + end.stderr
    cells = [[cell.strip() for cell in line.split("|")] for line in end.stdout.splitlines()]
    assert ["", "params.yaml", "train.lr", "0.1", "0.05", ""] in cells
    [(old, new)] = [line[3:5] for line in cells if "test.rmse" in line]
    assert old != new, "the change is in digits that are usually cut off"
    assert float(old) == pytest.approx(float(new), rel=1e-3)
    assert "![Losses, fit and residuals](https://host/figure.svg)" in end.stdout


def test_nothing_changed_is_said(branch):
    end = branch("# learning rate", "# the learning rate")
    assert end.stdout.startswith("### Parameters\n\nNo change.\n\n### Metrics\n\nNo change.\n")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("lr: 0.1 ", "lr: 0.001 ", "RMSE on the test rows is worse by more than 1 %: "),
        ("test: 0.2 ", "test: 0 ", "The scores are of train rows, and were of test rows."),
    ],
)
def test_a_worse_model_fails_the_check(branch, old, new, sentence):
    end = branch(old, new)
    assert end.returncode == 1
    assert end.stderr.startswith(sentence)
    assert f"**{sentence}" in end.stdout


@pytest.mark.parametrize("base", [["nowhere"], [""], []])
def test_a_base_that_does_not_exist_is_said(quick, tmp_path, base):
    folder = shutil.copytree(quick, tmp_path / "copy")
    end = command(folder, "python", ".ci/report.py", *base)
    assert end.returncode == 1
    assert f"rev-parse --verify {''.join(base)}^{{commit}}` failed: fatal" in end.stderr
    assert "Traceback" not in end.stderr


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"test": {"rmse": null}}', '{"test": {"rmse": NaN}}']
)
def test_scores_that_are_none_fail_the_check(quick, tmp_path, content):
    folder = shutil.copytree(quick, tmp_path / "copy")
    (folder / "metrics/evaluation.json").write_text(content)
    end = command(folder, "python", ".ci/report.py", "HEAD")
    assert end.returncode == 1
    assert "Traceback" not in end.stderr
    assert len(end.stderr.splitlines()) == 1

"""The report on a pull request, from two real commits."""

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
        for arguments in (["dvc", "repro"], ["git", *IDENTITY, "commit", "-qam", "Change"]):
            result = command(folder, *arguments)
            assert result.returncode == 0, result.stderr
        return command(folder, "python", ".ci/report.py", "HEAD~1", "https://host/figure.svg")

    return run


def test_a_report_shows_parameters_metrics_at_full_precision_and_the_figure(branch):
    result = branch("lr: 0.1 ", "lr: 0.05 ")
    assert result.returncode == 0, result.stdout + result.stderr
    cells = [[cell.strip() for cell in line.split("|")] for line in result.stdout.splitlines()]
    assert ["", "params.yaml", "train.lr", "0.1", "0.05", ""] in cells
    [(old, new)] = [line[3:5] for line in cells if "validation.rmse" in line]
    assert old != new, "the change is in digits that are usually cut off"
    assert float(old) == pytest.approx(float(new), rel=1e-3)
    assert "![Losses, fit and residuals](https://host/figure.svg)" in result.stdout


def test_a_report_without_a_change_tells_so(branch):
    result = branch("# learning rate", "# the learning rate")
    assert result.stdout.startswith("### Parameters\n\nNo change.\n\n### Metrics\n\nNo change.\n")
    assert result.stdout.endswith(
        "RMSE on the validation rows is not worse: 0.0501572 after 0.0501572.\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("lr: 0.1 ", "lr: 0.001 ", "RMSE on the validation rows is worse by more than 1 %: "),
        ("target: y ", "target: x ", "The target is `x` now, but was `y` before."),
        (
            "validation: 0.1 ",
            "validation: 0 ",
            "The scores are of train rows now, but were of validation rows before.",
        ),
    ],
)
def test_a_worse_model_fails_the_check(branch, old, new, sentence):
    result = branch(old, new)
    assert result.returncode == 1
    assert result.stderr.startswith(sentence)
    assert f"**{sentence}" in result.stdout


def test_changed_rows_are_said(branch):
    result = branch("noise: 0.05 ", "noise: 0.04 ")
    assert result.returncode == 0, result.stderr
    sentence = "The validation rows have changed: the errors before and now are of different rows."
    assert sentence in result.stdout


def mix(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def train_alone(folder):
    mix(folder / "params.yaml", "lr: 0.1 ", "lr: 0.2 ")
    assert command(folder, "dvc", "repro", "-s", "train").returncode == 0


@pytest.mark.parametrize(
    ("cheat", "named"),
    [
        (train_alone, "models/trained"),
        (lambda folder: mix(folder / "params.yaml", "lr: 0.1 ", "lr: 0.2 "), "`train`"),
        (lambda folder: mix(folder / "metrics/evaluation.json", ": 0.", ": 0.0"), "metrics/evalu"),
    ],
)
def test_scores_of_another_model_fail_the_check(quick, tmp_path, cheat, named):
    folder = shutil.copytree(quick, tmp_path / "copy")
    cheat(folder)
    result = command(folder, "python", ".ci/report.py", "HEAD")
    assert result.returncode == 1
    assert result.stderr.startswith(named)
    assert result.stderr.endswith(
        " is not of the run that dvc.lock records. Run `dvc repro`, and commit.\n"
    )


def test_a_project_in_a_folder_of_a_repository_is_reported(quick, tmp_path):
    shutil.copytree(quick, tmp_path / "whole/part", ignore=shutil.ignore_patterns(".git"))
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Part of a whole"]):
        assert command(tmp_path / "whole", "git", *IDENTITY, *words).returncode == 0
    result = command(tmp_path / "whole/part", "python", ".ci/report.py", "HEAD")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("base", [["nowhere"], []])
def test_a_base_that_does_not_exist_is_refused(quick, tmp_path, base):
    folder = shutil.copytree(quick, tmp_path / "copy")
    result = command(folder, "python", ".ci/report.py", *base)
    assert result.returncode == 1
    assert f"rev-parse --verify {''.join(base)}^{{commit}}` failed: fatal" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"test": {"rmse": null}}', '{"test": {"rmse": NaN}}']
)
def test_damaged_scores_fail_the_check(quick, tmp_path, content):
    folder = shutil.copytree(quick, tmp_path / "copy")
    (folder / "metrics/evaluation.json").write_text(content)
    result = command(folder, "python", ".ci/report.py", "HEAD")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1

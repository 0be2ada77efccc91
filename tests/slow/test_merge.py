"""Branches that both ran, merged as the README says."""

import shutil

import pytest

from tests.conftest import command, contents

PARAMETERS, RESULTS = "params.yaml", ("dvc.lock", "metrics")


@pytest.fixture
def merge(quick, tmp_path):
    """Change a parameter on each of two branches, run both, and merge into conflicts."""
    folder = shutil.copytree(quick, tmp_path / "copy")

    def run(*words):
        end = command(folder, *words)
        assert end.returncode == 0, end.stdout + end.stderr

    def change(branch, old, new):
        run("git", "switch", "-qc", branch, "main")
        text = (folder / PARAMETERS).read_text()
        assert old in text
        (folder / PARAMETERS).write_text(text.replace(old, new))
        run("dvc", "repro")
        run("git", "commit", "-qam", branch)

    def branch_and_merge(theirs, ours):
        for name, value in (("name", "Test"), ("email", "test@localhost")):
            run("git", "config", f"user.{name}", value)
        change("theirs", *theirs)
        change("ours", *ours)
        end = command(folder, "git", "merge", "theirs")
        assert end.returncode == 1
        assert "Merge conflict in dvc.lock" in end.stdout
        return folder, run

    return branch_and_merge


def test_merged_results_are_those_of_the_merged_parameters_whichever_side_is_taken(merge):
    folder, run = merge(("lr: 0.1 ", "lr: 0.05 "), ("noise: 0.05 ", "noise: 0.1 "))
    names = "dvc.lock", "data/prepared", "models"
    before = {name: contents(folder / name) for name in names}
    end = command(folder, "dvc", "repro")
    assert end.returncode != 0, "the conflict is not settled"
    assert "dvc.lock" in end.stderr
    assert "Traceback" not in end.stderr
    assert {name: contents(folder / name) for name in names} == before

    found = []
    for side in ("--ours", "--theirs"):
        run("git", "checkout", side, *RESULTS)
        run("dvc", "repro")
        found.append({name: contents(folder / name) for name in (*names, "metrics")})
    assert found[0] == found[1] != before
    run("git", "commit", "-qa", "--no-edit")
    run("python", "tests/verify.py")
    merged = (folder / PARAMETERS).read_text()
    assert "lr: 0.05 " in merged
    assert "noise: 0.1 " in merged


def test_the_side_whose_parameter_is_taken_is_not_run_again(merge):
    folder, run = merge(("lr: 0.1 ", "lr: 0.05 "), ("lr: 0.1 ", "lr: 0.2 "))
    run("git", "checkout", "--theirs", PARAMETERS, *RESULTS)
    end = command(folder, "dvc", "repro")
    assert end.returncode == 0, end.stderr
    assert "Running" not in end.stdout
    assert "up to date" in command(folder, "dvc", "status").stdout

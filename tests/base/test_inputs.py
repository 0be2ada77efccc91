"""If an input changes while a stage runs, the outputs are not recorded."""

import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn, optim

from stages.base import inputs, process
from stages.base.errors import UserError
from stages.base.outputs import output_folder
from stages.training.checkpoint import State
from stages.training.ranks import Ranks
from stages.training.resume import Resume, resumable
from tests.conftest import ROOT, contents


@pytest.fixture
def noted(workspace, monkeypatch):
    """A project whose inputs have been noted, as when DVC starts `train`."""
    shutil.copytree(ROOT / "stages", workspace / "stages")
    shutil.copy(ROOT / "dvc.yaml", workspace)
    for name in ("statistics.json", "train.parquet", "validation.parquet"):
        path = workspace / "data/prepared" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"prepared")
    os.truncate(path, 2**21)
    monkeypatch.setattr(inputs, "_stage", lambda: "train")
    monkeypatch.setattr(inputs, "_noted", {})
    inputs._declared.cache_clear()
    inputs.note_inputs(math.inf)
    yield workspace
    inputs._declared.cache_clear()


def replace(name, old, new):
    path = Path(name)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


LARGE = "data/prepared/validation.parquet"
CHANGES = {
    "a parameter": (
        lambda: replace("params.yaml", "lr: 0.1 ", "lr: 0.2 "),
        "`train` in params.yaml",
    ),
    "half a line": (
        lambda: replace("params.yaml", "lr: 0.1 ", "lr: ["),
        "`device` in params.yaml and `train` in params.yaml",
    ),
    "code in a room": (
        lambda: replace("stages/training/batches.py", "4", "5"),
        "stages/training/batches.py",
    ),
    "code": (lambda: replace("stages/train.py", "diverged", "exploded"), "stages/train.py"),
    "data": (
        lambda: Path("data/prepared/statistics.json").write_bytes(b"other"),
        "data/prepared/statistics.json",
    ),
    "a large file": (lambda: os.utime(LARGE, (0, 0)), LARGE),
    "a file that is gone": (lambda: Path(LARGE).unlink(), LARGE),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_input_that_has_changed_is_named_and_no_output_appears(noted, change):
    cause, changed = CHANGES[change]
    cause()
    before = contents(noted)
    sentence = (
        f"train: {changed} changed while the stage ran, so its outputs are not recorded. To keep"
        " the work, undo the change and run the stage again. To use the change, run the stage"
        " again."
    )
    with pytest.raises(UserError) as error, output_folder(Path("models/trained")) as folder:
        (folder / "file").touch()
    assert str(error.value) == sentence
    assert contents(noted) == before


def test_files_that_are_not_inputs_may_change(noted):
    replace("params.yaml", "rows: 1000 ", "rows: 1001 ")
    replace("stages/save.py", "Release", "Publish")
    os.utime("stages/train.py", (0, 0))
    for name in ("__pycache__/batches.cpython-311.pyc", ".batches.py.swp", "batches.py~"):
        Path("stages/training", name).parent.mkdir(exist_ok=True)
        Path("stages/training", name).touch()
    Path("data/raw/new.csv").write_text("x,y\n1,2\n")
    with output_folder(Path("models/trained")):
        pass
    assert Path("models/trained").exists()


@pytest.mark.parametrize("change", ["data", "a large file", "a file that is gone"])
def test_no_checkpoint_is_saved_after_the_rows_have_changed(noted, change):
    resume = Resume(noted / "state", b"", Ranks(), 1)
    resume._path.parent.mkdir()
    state = State(nn.Linear(1, 1), optim.SGD([torch.ones(1)]))
    CHANGES["a parameter"][0]()  # it is not read again
    Path("dvc.yaml").write_text("stages: {train: {deps: [data], params: [train]}}")
    resume.save_if_due(state, is_last=True)
    inputs._declared.cache_clear()
    resume.save_if_due(state, is_last=True)  # the folder is listed first, then its files
    before = contents(noted)
    cause, changed = CHANGES[change]
    cause()
    with pytest.raises(UserError, match=f"^train: {changed} changed while the stage ran, "):
        resume.save_if_due(state, is_last=True)
    assert contents(noted / "state") == {"state": before["state/state"]}


def test_no_checkpoint_is_saved_if_the_code_has_changed_before_the_rows_are_read(noted):
    CHANGES["code"][0]()
    with pytest.raises(UserError, match=r"train\.py changed"), resumable({}, Ranks(), 1):
        pass
    assert not Path(".resume").exists()


def test_without_a_plain_list_in_dvc_yaml_nothing_is_compared(noted):
    for text in (
        "", "stages: {}", "stages: {train: {deps: [{a: 1}], params: [{p.yaml: [a]}]}}",
        "[]", "stages:", "stages: {train: }", "stages: {train: {deps: }}", "stages: [",
    ):  # fmt: skip
        Path("dvc.yaml").write_text(text)
        inputs._declared.cache_clear()
        assert inputs._declared() == ([], [])
    Path("dvc.yaml").unlink()
    inputs._declared.cache_clear()
    assert inputs._declared() == ([], [])


def test_code_that_is_changed_while_a_stage_imports_is_refused(workspace):
    shutil.copytree(ROOT / "stages", workspace / "stages")
    program = "import sys, runpy; input(); runpy.run_module('stages.train', run_name='__main__')"
    stage = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    time.sleep(0.5)
    replace("stages/train.py", "diverged", "exploded")
    _, errors = stage.communicate("\n", timeout=60)
    assert stage.returncode == 1
    assert errors.endswith(
        "/stages/train.py changed while the stage started. Run the stage again.\n"
    )


def test_an_input_that_changes_after_the_last_output_is_refused(noted, monkeypatch):
    def main():
        replace("params.yaml", "lr: 0.1 ", "lr: 0.2 ")

    with pytest.raises(SystemExit) as exit_info:
        process.run(main)
    assert "changed while the stage ran, so its outputs are not recorded" in exit_info.value.code

"""What changes while a stage runs is not recorded beside outputs of what was there before."""

import os
import shutil
from pathlib import Path

import pytest

from stages.parts import inputs
from stages.parts.errors import UserError
from stages.parts.files import output_folder, write_json
from tests.conftest import ROOT, contents


@pytest.fixture
def noted(workspace, monkeypatch):
    """Inputs as they are when DVC starts `train`."""
    shutil.copytree(ROOT / "stages", workspace / "stages")
    shutil.copy(ROOT / "dvc.yaml", workspace)
    for name in ("statistics.json", "train.parquet", "validation.parquet"):
        path = workspace / "data/prepared" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"prepared")
    os.truncate(path, 2**21)
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setattr(inputs, "_stage", lambda: "train")
    monkeypatch.setattr(inputs, "_noted", {})
    inputs._listed.cache_clear()
    inputs.note_inputs()
    yield workspace
    inputs._listed.cache_clear()


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
    "code": (lambda: replace("stages/train.py", "1000", "1001"), "stages/train.py"),
    "data": (
        lambda: Path("data/prepared/statistics.json").write_bytes(b"other"),
        "data/prepared/statistics.json",
    ),
    "a large file": (lambda: os.utime(LARGE, (0, 0)), LARGE),
    "a file that is gone": (lambda: Path(LARGE).unlink(), LARGE),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_meanwhile_is_named_and_nothing_appears(noted, change):
    cause, what = CHANGES[change]
    cause()
    before = contents(noted)
    sentence = (
        f"train: {what} changed while it ran. Nothing is written, since DVC would record what was"
        " not used. Run it again; `dvc exp run --queue` leaves a run in peace."
    )
    with pytest.raises(UserError) as error, output_folder(Path("models/trained")) as folder:
        (folder / "file").touch()
    assert str(error.value) == sentence
    with pytest.raises(UserError, match="changed while it ran"):
        write_json(Path("metrics/evaluation.json"), {})
    assert contents(noted) == before


def test_what_is_no_input_may_change(noted):
    replace("params.yaml", "rows: 1000 ", "rows: 1001 ")
    replace("stages/save.py", "Release", "Publish")
    os.utime("stages/train.py", (0, 0))
    Path("data/raw/new.csv").write_text("x,y\n1,2\n")
    with output_folder(Path("models/trained")):
        pass
    assert Path("models/trained").exists()


def test_a_stage_that_dvc_does_not_run_notes_nothing(noted, monkeypatch):
    monkeypatch.setattr(inputs, "_noted", {})
    monkeypatch.delenv("DVC_STAGE")
    inputs.note_inputs()
    assert not inputs._noted

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.base import process
from stages.base.errors import UserError
from stages.base.outputs import output_folder
from stages.base.process import run
from tests.conftest import ROOT, command, contents


def refuse():
    raise UserError("params.yaml: `train.lr` must be greater than 0. Got 0.")


def no_space():
    raise OSError(errno.ENOSPC, "No space left on device", "models/x")


def bug():
    raise ZeroDivisionError


@pytest.fixture
def noted(workspace, monkeypatch):
    """A project whose inputs have been noted, as when DVC starts `train`."""
    shutil.copytree(ROOT / "stages", workspace / "stages")
    shutil.copy(ROOT / "dvc.yaml", workspace)
    for name in ("statistics.json", "train.parquet", "validation.parquet"):
        path = workspace / "data/prepared" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"prepared")
    os.truncate(LARGE, 2**21)
    monkeypatch.setattr(process, "_stage", lambda: "train")
    monkeypatch.setattr(process, "_noted", process._inputs())
    return workspace


def replace(name, old, new):
    path = Path(name)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(autouse=True)
def notes_nothing(monkeypatch):
    """Let `run` leave no notes to the tests that follow in this process."""
    monkeypatch.setattr(process, "_noted", {})


def test_an_error_that_a_user_can_cause_ends_with_its_sentence_and_status_1():
    with pytest.raises(SystemExit) as exit_info:
        run(refuse)
    assert exit_info.value.code == "params.yaml: `train.lr` must be greater than 0. Got 0."
    with pytest.raises(SystemExit) as exit_info:
        run(no_space)
    assert exit_info.value.code == (
        "models/x: No space left on device. Check the permissions and the free space."
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        SystemError("error return without exception set"),
    ],
)
def test_a_lack_of_memory_is_one_sentence(error):
    def starve():
        raise error

    with pytest.raises(SystemExit) as exit_info:
        run(starve)
    assert exit_info.value.code == (
        "Out of memory. Free some memory, or raise the memory limit of this process."
    )


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(bug)


DATA, LARGE = "data/prepared/validation.parquet", "data/prepared/train.parquet"
CHANGES = {
    "a parameter": (
        lambda: replace("params.yaml", "lr: 0.1 ", "lr: 0.2 "),
        "`train` in params.yaml",
    ),
    "code in a room": (
        lambda: replace("stages/training/batches.py", "4", "5"),
        "stages/training/batches.py",
    ),
    "code": (lambda: replace("stages/train.py", "diverged", "exploded"), "stages/train.py"),
    "new code": (lambda: Path("stages/base/new.py").touch(), "stages/base/new.py"),
    "small data": (lambda: Path(DATA).write_bytes(b"PREPARED"), DATA),
    "large data of the same size": (lambda: os.utime(LARGE, (0, 0)), LARGE),
    "a file that is gone": (lambda: Path(DATA).unlink(), DATA),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_input_that_has_changed_is_named_and_no_output_appears(noted, change):
    cause, changed = CHANGES[change]
    cause()
    before = contents(noted)
    with pytest.raises(UserError) as error, output_folder(Path("models/trained")) as folder:
        (folder / "file").touch()
    assert str(error.value) == (
        f"train: {changed} changed while the stage ran, so its outputs are not recorded. Run the"
        " stage again; if you undo the change first, a training continues where it was."
    )
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


def test_code_that_is_changed_while_a_stage_imports_is_refused(workspace):
    shutil.copytree(ROOT / "stages", workspace / "stages")
    program = (
        "import runpy, sys, stages; input(); runpy.run_module('stages.train', run_name='__main__')"
    )
    stage = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    time.sleep(0.5)
    replace("stages/train.py", "diverged", "exploded")
    _, errors = stage.communicate("\n", timeout=60)
    assert stage.returncode == 1
    assert errors.endswith("train.py changed while the stage started. Run the stage again.\n")


def test_code_with_a_time_in_the_future_runs_because_a_clock_may_have_been_set_back(workspace):
    shutil.copytree(ROOT / "stages", workspace / "stages")
    tomorrow = time.time() + 86_400
    os.utime("stages/prepare.py", (tomorrow, tomorrow))
    result = command(workspace, "python", "-m", "stages.prepare")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("arguments", [["prepare"], ["predict", "models/release", "new.csv"]])
def test_on_windows_one_sentence_names_wsl(workspace, arguments):
    (workspace / "sitecustomize.py").write_text("import sys\nsys.modules['fcntl'] = None\n")
    shutil.copytree(ROOT / "stages", workspace / "stages")
    stage, *rest = arguments
    result = command(
        workspace, "python", "-m", f"stages.{stage}", *rest, environment={"PYTHONPATH": "."}
    )
    sentence = "The stages need Linux or macOS. On Windows, run them in WSL.\n"
    assert (result.returncode, result.stderr) == (1, sentence)


@pytest.mark.parametrize("moment", ["import torch", "params = load_params()"])
def test_an_interrupted_stage_prints_no_traceback(workspace, moment):
    shutil.copytree(ROOT / "stages", "stages")
    path = Path("stages/train.py")
    wait = "import time; print('begun', flush=True); time.sleep(60); "
    path.write_text(path.read_text().replace(moment, wait + moment, 1))
    stage = subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no lock)
    )  # fmt: skip
    assert stage.stdout.readline() == "begun\n"
    stage.send_signal(signal.SIGINT)
    _, errors = stage.communicate(timeout=10)
    assert (stage.returncode, errors) == (-signal.SIGINT, "")


@pytest.mark.slow
@pytest.mark.parametrize("words", [["repro"], ["exp", "run"], ["exp", "run", "--temp"]])
def test_a_stage_ends_when_dvc_is_killed(quick, tmp_path, words, monkeypatch):
    monkeypatch.delenv("SHELL", raising=False)  # DVC then uses sh, which does not replace itself
    folder = shutil.copytree(quick, tmp_path / "copy")
    path = folder / "stages/prepare.py"
    wait = f"print('begun', file=open('{tmp_path}/begun', 'w'), flush=True); time.sleep(600); "
    path.write_text("import time\n" + path.read_text().replace("params = load", wait + "p = load"))
    dvc = subprocess.Popen(["dvc", *words], cwd=folder, start_new_session=True)
    while not (tmp_path / "begun").exists():
        time.sleep(0.1)
    children = Path(f"/proc/{dvc.pid}/task/{dvc.pid}/children").read_text().split()
    dvc.kill()
    dvc.wait()
    time.sleep(1)
    assert children
    for child in children:  # a process that has ended, but that nobody has asked, has no command
        path = Path("/proc", child, "cmdline")
        assert not path.exists() or not path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", [["setsid", "-w"], ["nohup"], ["setsid", "-w", "nohup"]])
def test_a_healthy_run_ends_whatever_starts_it(quick, tmp_path, wrapper):
    folder = shutil.copytree(quick, tmp_path / "copy")
    result = command(folder, *wrapper, "dvc", "exp", "run", "-f", "-s", "save")
    assert result.returncode == 0, result.stdout + result.stderr

import errno
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stages.base import process
from stages.base.errors import UserError
from stages.base.outputs import output_folder
from stages.base.process import run
from tests.conftest import ROOT, command


def refuse():
    raise UserError("params.yaml: `train.lr` must be greater than 0. Got 0.")


def no_space():
    raise OSError(errno.ENOSPC, "No space left on device", "models/x")


def bug():
    raise ZeroDivisionError


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


def test_an_orphan_writes_nothing(tmp_path, monkeypatch):
    me = threading.get_ident()  # threads of other tests wait for orphans, too
    monkeypatch.setattr(process, "is_orphan", lambda: threading.get_ident() == me)
    sentence = "The outputs are not written, because DVC has been killed. Run the stage again."
    with pytest.raises(UserError, match=sentence), output_folder(tmp_path / "folder"):
        pass
    assert not (tmp_path / "folder").exists()


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", [["setsid", "-w"], ["nohup"], ["setsid", "-w", "nohup"]])
def test_a_healthy_run_is_not_an_orphan_whatever_it_is_called(quick, tmp_path, wrapper):
    folder = shutil.copytree(quick, tmp_path / "stages.v2")
    message = ["-n", "stages.a2", "-m", "stages.v2: slower"]
    experiment = [sys.executable, "-m", "dvc", "exp", "run", "-f", "-s", *message, "save"]
    result = command(folder, *wrapper, *experiment)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("command_line", "is_dvc"),
    [
        (b"python\0/usr/bin/dvc\0repro\0", True),
        (b"dvc\0repro\0", True),
        (b"python\0-m\0dvc\0repro\0", True),
        (b"sh\0-c\0dvc repro; sleep 1\0", False),
        (b"/sbin/init\0", False),
    ],
)
def test_process_1_is_dvc_or_adopts_orphans(tmp_path, monkeypatch, command_line, is_dvc):
    for pid, parent, content in ((7, 1, b"python\0-m\0stages.train\0"), (1, 0, command_line)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / f"{pid}/stat").write_text(f"{pid} (a) b) S {parent} 1 1" + " 0" * 15 + " 5 0")
        (tmp_path / f"{pid}/cmdline").write_bytes(content)
    monkeypatch.setattr(process, "PROC", tmp_path)
    monkeypatch.setattr(process.os, "getpid", lambda: 7)
    monkeypatch.setenv("DVC_STAGE", "train")
    starters = process._starters.__wrapped__()
    assert starters == [(1, "5" if is_dvc else "died before")]


@pytest.mark.parametrize("is_stopping", [False, True])
def test_an_orphan_gets_one_signal_and_is_killed_in_the_end(monkeypatch, is_stopping):
    sent = []
    monkeypatch.setattr(process, "is_orphan", lambda: True)
    monkeypatch.setattr(process, "LAST_STEP_SECONDS", 0.0)
    monkeypatch.setattr(process.os, "kill", lambda pid, signum: sent.append(signum))
    event = process.threading.Event()
    monkeypatch.setattr(process, "is_stopping", event)
    if is_stopping:
        event.set()
    process._end_as_orphan()
    assert sent == [signal.SIGTERM, signal.SIGKILL][is_stopping:]


def test_two_processes_may_write_the_same_folder_at_once(tmp_path):
    program = (
        "import sys; from pathlib import Path; from stages.base.outputs import output_folder\n"
        "for number in range(200):\n"
        "    with output_folder(Path(sys.argv[1])) as folder:\n"
        "        (folder / 'file').write_text(sys.argv[2])\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, tmp_path / "out", word], cwd=ROOT)
        for word in ("one", "two")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/file").read_text() in {"one", "two"}


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
def test_a_stage_runs_with_closed_standard_streams(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    program = f"{sys.executable} -m stages.train >&- 2>&-"
    assert command(folder, "sh", "-c", program).returncode == 0
    assert Path(folder, "models/trained/weights.safetensors").exists()

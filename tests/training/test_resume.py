"""A training that is stopped anywhere continues to the same bits; no other process interferes."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages import prepare, train
from stages.base import process, recorded
from stages.base.files import TRAINED, lock_folder
from stages.base.recorded import forget_recorded
from stages.training import resume as module
from tests.conftest import ROOT, command, contents, without_override

JOBS = {
    "line": {"train.epochs": 9},
    "batches": {"train.batch_size": 200, "train.epochs": 3},
    "adam": {"train.optimizer": "adam", "train.hidden": [4], "train.batch_size": 300,
             "train.epochs": 3},
    "lbfgs": {"train.optimizer": "lbfgs", "train.lr": 1.0, "train.epochs": 6,
              "prepare.dtype": "float64", "train.hidden": [3]},
    "patience": {"train.lr": 0.9, "train.patience": 2, "train.epochs": 60, "train.batch_size": 350},
    "no validation": {"prepare.validation": 0, "train.epochs": 5},
}  # fmt: skip
SAVE, SAVE_NOW = module.Resume.save_if_due, module.Resume._save
RESUMED = re.compile(r"train: resumed at epoch \d+ of \d+(, step \d+)?\n")
OLD, YOUNG, LOCKED = "a" * 32, "b" * 32, "c" * 32


class Killed(BaseException):
    """Ends a training in the middle, like a signal that cannot be caught."""


@pytest.fixture
def kill_after(monkeypatch):
    """Let the training save at every step, and kill it after this many steps."""

    def kill(num_steps):
        monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.0)
        monkeypatch.setattr(module, "MAX_SAVING_FRACTION", 1e9)
        num_saves = 0

        def save_and_count(self, state, **options):
            nonlocal num_saves
            SAVE(self, state, **options)
            num_saves += 1
            if num_saves == num_steps:
                raise Killed

        monkeypatch.setattr(module.Resume, "save_if_due", save_and_count)

    return kill


def checkpoints():
    return sorted(Path(".resume").glob("*/state"))


@pytest.mark.parametrize("job", JOBS)
def test_a_training_killed_after_any_step_continues_to_the_same_bits(
    workspace, change, kill_after, capsys, job
):
    change(JOBS[job])
    prepare.main()
    train.main()
    expected = contents(TRAINED)
    num_kills = 0
    for num_steps in range(1, 100):
        kill_after(num_steps)
        try:
            train.main()
            break
        except Killed:
            num_kills += 1
        assert len(checkpoints()) == 1
        shutil.rmtree(TRAINED)
        capsys.readouterr()
        kill_after(-1)
        train.main()
        assert RESUMED.search(capsys.readouterr().out)
        assert contents(TRAINED) == expected
        assert not list(Path(".resume").iterdir()), (
            "the checkpoint is deleted when the outputs are written"
        )
    assert num_kills >= 3


def test_a_training_killed_again_and_again_ends_with_the_same_bits(workspace, change, kill_after):
    change(JOBS["adam"])
    prepare.main()
    train.main()
    expected = contents(TRAINED)
    shutil.rmtree(TRAINED)
    kill_after(1)
    for _ in range(9):
        with pytest.raises(Killed):
            train.main()
        kill_after(1)
    kill_after(-1)
    train.main()
    assert contents(TRAINED) == expected


@pytest.mark.parametrize("changed", ["parameter", "data", "code"])
def test_a_checkpoint_of_another_fingerprint_is_not_used(
    workspace, change, kill_after, capsys, monkeypatch, changed
):
    change({"train.epochs": 9})
    prepare.main()
    kill_after(4)
    with pytest.raises(Killed):
        train.main()
    kill_after(-1)
    if changed == "parameter":
        change({"train.lr": 0.05})
    elif changed == "data":
        change({"prepare.seed": 1})
        prepare.main()
    else:
        monkeypatch.setattr(train, "fingerprint", lambda *_: {"code in stages/": b"other"})
    train.main()
    assert "resumed" not in capsys.readouterr().out
    assert len(checkpoints()) == 1, "the other checkpoint is kept"


@pytest.fixture
def killed(workspace, change, kill_after, capsys):
    """The checkpoint of a killed training, and the bytes that it must end with."""
    change({"train.epochs": 9})
    prepare.main()
    train.main()
    expected = contents(TRAINED)
    kill_after(4)
    with pytest.raises(Killed):
        train.main()
    kill_after(-1)
    [path] = checkpoints()
    capsys.readouterr()
    return path, expected


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_a_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_a_second_folder(path):
    replace_by_a_folder(path)
    damaged = path.with_name("damaged")
    damaged.mkdir()
    (damaged / "left").touch()


DAMAGES = {
    "flipped": flip,
    "much too large": lambda path: os.truncate(path, 2**43),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to an endless file": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "a folder": replace_by_a_folder,
    "a folder, again": replace_by_a_second_folder,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_renamed_and_training_starts_from_the_beginning(
    killed, capsys, damage
):
    path, expected = killed
    DAMAGES[damage](path)
    train.main()
    printed = capsys.readouterr()
    assert printed.err == (
        f"train: the checkpoint {path} is damaged and was renamed to `damaged`. Training starts"
        " from the beginning.\n"
    )
    assert "resumed" not in printed.out
    assert contents(TRAINED) == expected


def test_a_damaged_checkpoint_that_cannot_be_renamed_stays_there(killed, capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    path, expected = killed
    flip(path)
    monkeypatch.setattr(module, "remove", refuse)
    train.main()
    errors = capsys.readouterr().err
    assert f"{path} is damaged and cannot be renamed: Operation not permitted. Training" in errors
    assert contents(TRAINED) == expected


def test_a_checkpoint_put_in_the_place_of_another_is_renamed(workspace, change, kill_after, capsys):
    change({"train.epochs": 9, "train.lr": 0.02})
    prepare.main()
    train.main()
    expected = contents(TRAINED)
    for lr in (0.01, 0.02):
        change({"train.lr": lr})
        kill_after(4)
        with pytest.raises(Killed):
            train.main()
    mine, other = sorted(checkpoints(), key=lambda path: path.stat().st_mtime, reverse=True)
    mine.write_bytes(other.read_bytes())
    kill_after(-1)
    train.main()
    assert "is damaged and was renamed" in capsys.readouterr().err
    assert contents(TRAINED) == expected


ODD = {
    "the folder is deleted": lambda folder: shutil.rmtree(folder.parent),
    "it is a file": lambda folder: (shutil.rmtree(folder), folder.touch()),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_checkpoint_that_cannot_be_written_or_deleted_ends_no_training(
    workspace, change, kill_after, capsys, monkeypatch, odd
):
    change({"train.epochs": 9})
    prepare.main()
    train.main()
    expected = contents(TRAINED)
    kill_after(-1)
    save = module.Resume._save

    def disturbed(self, state):
        if not self._is_warned:
            ODD[odd](self._path.parent)
        return save(self, state)

    monkeypatch.setattr(module.Resume, "_save", disturbed)
    train.main()
    assert capsys.readouterr().err.count("cannot be written: ") == 1
    assert contents(TRAINED) == expected


@pytest.mark.parametrize("odd", ["pipe", "link"])
def test_a_pid_file_that_is_something_else_is_replaced(workspace, odd):
    path = workspace / "state/pid"
    path.parent.mkdir()
    os.mkfifo(path) if odd == "pipe" else path.symlink_to(os.devnull)
    assert module._owner(path.parent) == "another process"
    os.close(module._lock(path.parent))
    assert module._owner(path.parent) == f"process {os.getpid()}"


@pytest.mark.parametrize("content", [b"\xff", None])
def test_a_trainer_without_a_readable_pid_is_called_another_process(
    workspace, change, content, capsys
):
    folder = workspace / "state"
    folder.mkdir()
    if content is None:
        (folder / "pid").mkdir()
    else:
        (folder / "pid").write_bytes(content)
    assert module._owner(folder) == "another process"
    os.close(module._lock(folder))


def test_a_file_beside_the_checkpoints_disturbs_no_training(workspace, change):
    change({"train.epochs": 2})
    prepare.main()
    Path(".resume").mkdir()
    odd = Path(".resume", OLD)
    odd.write_text("a file")
    os.utime(odd, (0, 0))
    train.main()
    assert odd.exists()


@pytest.mark.slow
def test_a_checkpoint_that_may_not_be_read_is_renamed(long_job):
    folder, expected = long_job
    start(folder).stop(signal.SIGTERM)
    [path] = folder.glob(".resume/*/state")
    path.chmod(0)
    result = command(folder, *TRAIN, preexec_fn=without_override)
    assert result.returncode == 0, result.stderr
    assert "is damaged and was renamed" in result.stderr
    assert contents(folder / TRAINED) == expected


def test_a_training_that_dvc_has_not_recorded_is_not_lost(workspace, change, monkeypatch, capsys):
    change({"train.lr": 0.9, "train.patience": 2, "train.epochs": 60})
    monkeypatch.setenv("DVC_STAGE", "train")
    prepare.main()
    train.main()
    expected = contents(TRAINED)
    [path] = checkpoints()
    shutil.rmtree(TRAINED)  # as DVC does before it runs it again
    capsys.readouterr()
    train.main()
    epochs = expected["history.csv"].count(b"\n") - 1
    assert f"train: resumed at epoch {epochs} of 60\n" in capsys.readouterr().out
    assert contents(TRAINED) == expected
    forget_recorded()
    assert path.exists(), "dvc.lock does not name the outputs"
    ended = path.with_name("ended")
    Path("dvc.lock").write_text(f"stages:\n{ended.read_text()}")
    noted = ended.read_bytes()
    ended.write_bytes(b"")
    forget_recorded()
    assert path.exists(), "the note was emptied"
    ended.write_bytes(noted)
    lock = lock_folder(path.parent)
    forget_recorded()
    os.close(lock)
    assert path.exists(), "another process uses it"
    train.main()
    assert "resumed" not in capsys.readouterr().out, "DVC has recorded it: this training was forced"
    forget_recorded()
    assert not [*Path(".resume").iterdir()]


def test_equal_outputs_of_other_code_do_not_count_as_recorded(workspace, monkeypatch):
    state, outputs, code = Path(".resume/state"), Path("models/trained"), Path("train.py")
    for folder in (state, outputs):
        folder.mkdir(parents=True)
    for path in (outputs / "weights", code):
        path.write_text(path.name)
    monkeypatch.setattr(recorded, "listed_code", lambda: [code])
    recorded.note_end(state, outputs)
    lines = (state / "ended").read_text().splitlines(keepends=True)
    assert len(lines) == 2
    Path("dvc.lock").write_text(lines[0])
    forget_recorded()
    assert state.exists()
    Path("dvc.lock").write_text("".join(lines))
    forget_recorded()
    assert not state.exists()


@pytest.mark.slow
def test_a_training_that_dvc_has_recorded_runs_again_if_it_is_forced(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    for _ in range(2):
        result = command(folder, "dvc", "repro", "--force", "--single-item", "train")
        assert result.returncode == 0, result.stderr
        assert "resumed" not in result.stdout
        assert len([*folder.glob(".resume/*/ended")]) == 1
    assert command(folder, "dvc", "repro", "--force", "evaluate").returncode == 0
    assert not [*(folder / ".resume").iterdir()]


def test_a_signal_after_the_last_step_ends_the_process(workspace, change, monkeypatch, capsys):
    def stop(self, state):
        self.stop(signal.SIGTERM, None)
        return SAVE_NOW(self, state)

    killed = []
    change({"train.epochs": 2})
    prepare.main()
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 1e9)  # the last save alone, however slow
    monkeypatch.setattr(module.Resume, "_save", stop)
    monkeypatch.setattr(module.os, "kill", lambda pid, signum: killed.append((pid, signum)))
    train.main()
    assert killed == [(os.getpid(), signal.SIGTERM)]
    assert "stopped by SIGTERM; the next run goes on from epoch 2 of 2\n" in capsys.readouterr().out


def test_a_signal_after_the_last_save_ends_the_process(workspace, change, monkeypatch, capsys):
    killed = []
    change({"train.epochs": 2})
    prepare.main()
    monkeypatch.setattr(train, "flush", lambda _folder: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(module.os, "kill", lambda pid, signum: killed.append((pid, signum)))
    train.main()
    assert killed == [(os.getpid(), signal.SIGTERM)]
    assert "train: stopped by SIGTERM; the outputs are written\n" in capsys.readouterr().out


def test_a_full_disk_stops_no_training_and_is_reported_once(
    workspace, change, kill_after, capsys, monkeypatch
):
    fsync = os.fsync

    def no_space(descriptor):
        if ".resume" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    change({"train.epochs": 9})
    prepare.main()
    train.main()
    expected = contents(TRAINED)
    kill_after(-1)
    monkeypatch.setattr(module.os, "fsync", no_space)
    train.main()
    errors = capsys.readouterr().err
    assert errors.count("cannot be written: No space left on device.") == 1
    assert contents(TRAINED) == expected


def test_the_checkpoint_is_kept_until_the_outputs_are_on_the_disk(workspace, change, monkeypatch):
    flushed, fsync, end_training = set(), os.fsync, module.Resume.end

    def note(descriptor):
        fsync(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    def check(self, folder):
        outputs = [*TRAINED.iterdir(), TRAINED, TRAINED.parent]
        assert len(outputs) == 4
        assert {path.stat().st_ino for path in outputs} <= flushed
        end_training(self, folder)

    change({"train.epochs": 2})
    prepare.main()
    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(module.Resume, "end", check)
    train.main()
    assert flushed
    assert not list(Path(".resume").iterdir())


def test_checkpoints_older_than_30_days_are_deleted(workspace, change):
    change({"train.epochs": 2})
    prepare.main()
    day = 24 * 3600
    ages = {OLD: 31, YOUNG: 29, LOCKED: 31}
    for name, days in ages.items():
        folder = Path(".resume", name)
        folder.mkdir(parents=True)
        (folder / "state").write_bytes(b"")
        os.utime(folder, (time.time() - days * day,) * 2)
    for name in ("thesis", "notes.txt"):
        theirs = Path(".resume", name)
        theirs.mkdir() if name == "thesis" else theirs.touch()
        os.utime(theirs, (time.time() - 31 * day,) * 2)
    lock = lock_folder(Path(".resume", LOCKED))
    train.main()
    os.close(lock)
    kept = {path.name for path in Path(".resume").iterdir()}
    assert kept == {LOCKED, YOUNG, "thesis", "notes.txt"}


TRAIN = [sys.executable, "-m", "stages.train"]


def ignore_no_signal():
    for item in module.SIGNALS:
        signal.signal(item, signal.SIG_DFL)


class Started:
    """A running command in its own session."""

    def __init__(self, folder, arguments, environment):
        names = ("PYTHON", "DVC", "ATEN", "MKL", "OMP")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(names)}
        inherited["PATH"] = f"{Path(sys.executable).parent}:{inherited['PATH']}"
        self.process = subprocess.Popen(
            arguments, cwd=folder, env=inherited | environment, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=ignore_no_signal,  # noqa: PLW1509 (it touches no lock)
        )  # fmt: skip

    def stop(self, signum):
        """Send the first process a signal that ends it; return what it has printed."""
        self.process.send_signal(signum)
        printed, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == -signum, printed
        return printed


def wait_until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start(folder, arguments=TRAIN, **environment):
    """Start a training, and wait until it has saved a checkpoint."""
    path = folder / ".resume"
    before = {file: file.stat().st_mtime for file in path.glob("*/state")}
    started = Started(folder, arguments, environment)
    wait_until(
        lambda: any(file.stat().st_mtime != before.get(file) for file in path.glob("*/state"))
    )
    return started


def pid_of(folder):
    [path] = folder.glob(".resume/*/pid")
    return int(path.read_text())


@pytest.fixture(scope="module")
def long_run(finished, tmp_path_factory):
    """A copy of the project that has prepared a long training, and the bytes it ends with."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("long") / "project")
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 200 ", "epochs: 25000 "))
    result = command(folder, *TRAIN)
    assert result.returncode == 0, result.stderr
    expected = contents(folder / TRAINED)
    shutil.rmtree(folder / TRAINED)
    return folder, expected


@pytest.fixture
def long_job(long_run, tmp_path):
    folder, expected = long_run
    return shutil.copytree(folder, tmp_path / "project"), expected


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_ends_the_process_and_the_next_run_continues(long_job, signum):
    folder, expected = long_job
    printed = start(folder).stop(signum)
    where = re.search(
        rf"train: stopped by {signum.name}; the next run goes on from (.*)\n", printed
    )
    assert where, printed
    assert "Traceback" not in printed
    assert not (folder / TRAINED).exists()
    result = command(folder, *TRAIN)
    assert f"train: resumed at {where[1]}\n" in result.stdout
    assert contents(folder / TRAINED) == expected


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(long_job):
    folder, expected = long_job
    started = start(folder, ["nohup", *TRAIN])
    started.process.send_signal(signal.SIGHUP)
    printed, _ = started.process.communicate(timeout=60)
    assert started.process.returncode == 0, printed
    assert "stopped" not in printed
    assert contents(folder / TRAINED) == expected


@pytest.mark.slow
def test_a_second_signal_ends_the_process_at_once(long_job):
    folder, _ = long_job
    params = folder / "params.yaml"
    text = params.read_text().replace("rows: 1000 ", "rows: 400000 ")
    params.write_text(text.replace("hidden: [] ", "hidden: [2000] "))  # a step takes many seconds
    assert command(folder, sys.executable, "-m", "stages.prepare").returncode == 0
    started = Started(folder, TRAIN, {})
    wait_until(lambda: list(folder.glob(".resume/*/pid")))
    time.sleep(1)
    started.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert started.process.poll() is None, "the step goes on"
    printed = started.stop(signal.SIGTERM)
    assert "stopped" not in printed
    assert not list(folder.glob(".resume/*/state"))


@pytest.mark.slow
def test_a_second_signal_ends_a_process_whose_main_thread_computes(tmp_path):
    """A Python handler would run only after the computation, in minutes."""
    program = (
        "import hashlib, threading\n"
        "from stages.base import process\n"
        "from stages.training import resume\nfrom stages.training.ranks import Ranks\n"
        "def report(): process.is_stopping.wait(); print('will stop', flush=True)\n"
        "with resume.resumable({}, Ranks(), 1):\n"
        "    threading.Thread(target=report, daemon=True).start()\n"
        "    print('begun', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**30)\n"
    )
    returncodes = []
    for num_signals in (1, 2):
        started = Started(ROOT, [sys.executable, "-c", program], {"DVC_ROOT": str(tmp_path)})
        assert started.process.stdout.readline() == "begun\n"
        for number in range(num_signals):
            time.sleep(1)
            started.process.send_signal(signal.SIGTERM)
            if not number:  # the thread that ends orphans sends no second signal
                assert started.process.stdout.readline() == "will stop\n"
        try:
            started.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            started.process.kill()
            started.process.communicate()
        returncodes.append(started.process.returncode)
    assert returncodes == [-signal.SIGKILL, -signal.SIGTERM]


@pytest.mark.slow
def test_a_trainer_saves_and_stops_when_dvc_has_died(long_job):
    folder, expected = long_job
    start(folder, ["dvc", "repro", "train"]).stop(signal.SIGKILL)
    pid = pid_of(folder)
    wait_until(lambda: not process._stat(pid)[0], seconds=10)
    assert not (folder / TRAINED).exists()
    result = command(folder, "dvc", "repro", "train")
    assert result.returncode == 0, result.stderr
    assert RESUMED.search(result.stdout)
    assert contents(folder / TRAINED) == expected


@pytest.mark.slow
def test_parameters_changed_during_training_are_not_recorded_with_its_outputs(long_job):
    folder, expected = long_job
    started = start(folder, ["dvc", "repro", "train"])
    params, lock = folder / "params.yaml", (folder / "dvc.lock").read_text()
    text = params.read_text()
    params.write_text(text.replace("lr: 0.1 ", "lr: 0.2 "))
    printed, _ = started.process.communicate(timeout=120)
    assert started.process.returncode != 0
    assert "train: `train` in params.yaml changed while the stage ran, so its outputs" in printed
    assert not (folder / TRAINED).exists()
    assert (folder / "dvc.lock").read_text() == lock
    params.write_text(text)
    result = command(folder, "dvc", "repro", "train")
    assert RESUMED.search(result.stdout), result.stderr
    assert contents(folder / TRAINED) == expected


@pytest.mark.slow
def test_a_trainer_started_by_hand_outlives_its_shell(long_job):
    folder, expected = long_job
    start(folder, ["sh", "-c", f"{sys.executable} -m stages.train & wait"]).stop(signal.SIGKILL)
    wait_until((folder / TRAINED).exists)
    assert contents(folder / TRAINED) == expected


@pytest.mark.slow
def test_a_second_trainer_waits_and_names_the_first(long_job):
    folder, expected = long_job
    first = start(folder)
    with (folder / "second").open("w") as output:
        second = subprocess.Popen(TRAIN, cwd=folder, stdout=output)
    sentence = f"train: waiting for process {first.process.pid}, which runs the same training\n"
    wait_until(lambda: (folder / "second").read_text() == sentence)
    first.stop(signal.SIGTERM)
    assert second.wait(60) == 0
    assert RESUMED.search((folder / "second").read_text())
    assert contents(folder / TRAINED) == expected


@pytest.mark.slow
def test_two_trainings_of_different_parameters_do_not_wait_for_each_other(long_job, tmp_path):
    folder, expected = long_job
    other = shutil.copytree(folder, tmp_path / "other")
    params = other / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 25000 ", "epochs: 200 "))
    first = start(folder)
    second = command(other, *TRAIN, environment={"DVC_ROOT": str(folder)})
    assert second.returncode == 0, second.stderr
    assert "waiting" not in second.stdout
    printed, _ = first.process.communicate(timeout=120)
    assert first.process.returncode == 0, printed
    assert contents(folder / TRAINED) == expected
    assert not list(folder.glob(".resume/*")), "each has deleted its own checkpoint"


@pytest.mark.slow
def test_an_experiment_in_a_copy_resumes_the_training_of_another_copy(long_job):
    folder, _ = long_job
    arguments = ["dvc", "exp", "run", "--temp", "-S", "train.epochs=25001", "evaluate"]
    started = start(folder, arguments)
    os.killpg(started.process.pid, signal.SIGKILL)
    started.process.communicate()
    result = command(folder, *arguments)
    assert result.returncode == 0, result.stderr
    assert RESUMED.search(result.stdout)
    assert not list((folder / ".resume").iterdir())


@pytest.fixture(scope="module")
def large_run(tmp_path_factory):
    """A folder with a prepared training of three blocks a step, and the bytes it ends with."""
    folder = tmp_path_factory.mktemp("large")
    params = (ROOT / "params.yaml").read_text()
    params = params.replace("rows: 1000 ", "rows: 1000000 ").replace("epochs: 200 ", "epochs: 500 ")
    (folder / "params.yaml").write_text(params)
    shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("*.pyc"))
    (folder / "data/raw").mkdir(parents=True)
    assert command(folder, sys.executable, "-m", "stages.prepare").returncode == 0
    assert command(folder, *TRAIN).returncode == 0
    expected = contents(folder / TRAINED)
    shutil.rmtree(folder / TRAINED)
    return folder, expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("killed", "torchrun"),
    [("rank 0", None), ("another rank", None), ("all", "--standalone --nproc-per-node=3")],
)
def test_ranks_resume_with_another_number_of_them(large_run, tmp_path, killed, torchrun):
    folder, expected = shutil.copytree(large_run[0], tmp_path / "copy"), large_run[1]
    started = start(folder, TORCHRUN="--standalone --nproc-per-node=2")
    rank_0 = pid_of(folder)
    agent = started.process.pid
    ranks = [int(pid) for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]
    assert rank_0 in ranks
    assert len(ranks) == 2
    chosen = {"rank 0": {rank_0}, "another rank": {*ranks} - {rank_0}, "all": {*ranks}}[killed]
    for pid in chosen:
        os.kill(pid, signal.SIGKILL)
    started.process.communicate(timeout=60)
    assert started.process.returncode == 1
    assert not (folder / TRAINED).exists()
    result = command(folder, *TRAIN, environment={"TORCHRUN": torchrun} if torchrun else {})
    assert result.returncode == 0, result.stderr
    assert RESUMED.search(result.stdout)
    assert contents(folder / TRAINED) == expected


@pytest.mark.slow
def test_ranks_end_at_a_signal_to_all_and_resume(large_run, tmp_path):
    folder, expected = shutil.copytree(large_run[0], tmp_path / "copy"), large_run[1]
    started = start(folder, TORCHRUN="--standalone --nproc-per-node=2")
    os.killpg(started.process.pid, signal.SIGTERM)
    printed, _ = started.process.communicate(timeout=60)
    assert started.process.returncode != 0
    assert "the next run goes on from epoch" in printed
    assert not (folder / TRAINED).exists()
    result = command(folder, *TRAIN)
    assert result.returncode == 0, result.stderr
    assert RESUMED.search(result.stdout)
    assert contents(folder / TRAINED) == expected

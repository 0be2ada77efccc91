"""A training that is stopped anywhere continues to the same bits; no other process interferes."""

import errno
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from stages import prepare, train
from stages.base.files import TRAINED
from stages.base.params import load_params
from stages.network import build_optimizer
from stages.training import checkpoint as module
from stages.training.checkpoint import Checkpoint, State
from stages.training.ranks import Ranks
from tests.conftest import ROOT, command, contents, train_params

OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "weight_decay": 0.01},
    "lbfgs": {"optimizer": "lbfgs", "lr": 1.0},
}
JOBS = {
    "line": {"train.epochs": 9},
    "batches": {"train.batch_size": 200, "train.epochs": 3},
    "adam": {"train.optimizer": "adam", "train.hidden": [4], "train.batch_size": 300,
             "train.epochs": 3},
    "lbfgs": {"train.optimizer": "lbfgs", "train.lr": 1.0, "train.epochs": 6,
              "prepare.dtype": "float64", "train.hidden": [3]},
    "patience": {"train.lr": 0.9, "train.patience": 2, "train.epochs": 60, "train.batch_size": 350},
    "momentum, cosine": {"train.momentum": 0.9, "train.weight_decay": 0.01,
                         "train.schedule": "cosine", "train.batch_size": 250, "train.epochs": 3},
    "AdamW, cosine": {"train.optimizer": "adam", "train.weight_decay": 0.1, "train.hidden": [4],
                      "train.schedule": "cosine", "train.batch_size": 300, "train.epochs": 3},
    "no validation": {"prepare.validation": 0, "train.epochs": 5},
}  # fmt: skip
SAVE = Checkpoint.save_if_due
RESUMED = re.compile(r"train: resumed at epoch \d+(, step \d+)?\n")
TRAIN = [sys.executable, "-m", "stages.train"]


class Killed(BaseException):
    """Ends a training in the middle, like a signal that cannot be caught."""


@pytest.fixture
def kill_after(monkeypatch):
    """Let the training save at every step, and kill it after this many steps."""

    def kill(num_steps):
        monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.0)
        monkeypatch.setattr(module, "MAX_SAVING_FRACTION", 1e9)
        num_saves = 0

        def save_and_count(self, state):
            nonlocal num_saves
            SAVE(self, state)
            num_saves += 1
            if num_saves == num_steps:
                raise Killed

        monkeypatch.setattr(Checkpoint, "save_if_due", save_and_count)

    return kill


def checkpoints(folder=Path()):
    return sorted(folder.glob(".resume/*"))


def fresh(name: str) -> State:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    return State(
        network, build_optimizer(train_params(**OPTIMIZERS[name]), [*network.parameters()])
    )


def learn(state: State, num_steps: int) -> None:
    inputs = torch.linspace(-1, 1, 40).reshape(20, 2)
    targets = (inputs**2).sum(1, keepdim=True)

    def closure() -> float:
        state.optimizer.zero_grad()
        loss = nn.functional.mse_loss(state.network(inputs), targets)
        loss.backward()
        return loss.item()

    for _ in range(num_steps):
        state.total_loss += state.optimizer.step(closure)
        state.step += 1


def values(state: State) -> str:
    """Everything that a checkpoint holds; the bytes of the bytes may differ by order."""
    content = torch.load(io.BytesIO(state.to_bytes()), weights_only=True)
    return json.dumps(content, default=torch.Tensor.tolist, sort_keys=True)  # every float exactly


@pytest.mark.parametrize("num_steps", [0, 1, 2, 5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_state_trains_on_to_the_same_bits_as_the_original(name, num_steps):
    original, restored = fresh(name), fresh(name)
    learn(original, num_steps)
    original.end_epoch(20, validation_loss=0.1 + 0.2)
    original.end_epoch(20, validation_loss=None)
    learn(original, num_steps)
    original.best_network = {name: t.clone() for name, t in original.network.state_dict().items()}
    restored.restore(original.to_bytes())
    assert values(restored) == values(original)
    assert restored.history == original.history
    for state in (original, restored):
        learn(state, 7)
    assert values(restored) == values(original)


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
        assert not checkpoints(), "the checkpoint is deleted when the outputs are written"
    assert num_kills >= 3


def test_a_training_killed_again_and_again_ends_with_the_same_bits(workspace, change, kill_after):
    change(JOBS["adam"])
    prepare.main()
    train.main()
    expected = contents(TRAINED)
    shutil.rmtree(TRAINED)
    for _ in range(9):
        kill_after(1)
        with pytest.raises(Killed):
            train.main()
    kill_after(-1)
    train.main()
    assert contents(TRAINED) == expected


def named_differences(monkeypatch, cause):
    """The names of the digests that differ after ``cause``."""
    noted = []
    monkeypatch.setattr(Ranks, "require_equal", lambda _self, digests: noted.append(digests))
    for _ in range(2):
        params, device = load_params().train, torch.device("cpu")
        if noted:
            params, device = cause(params) or params, cause(device) or device
        Checkpoint(params, device, [Path("data/a"), Path("data/b")], Ranks())
    before, after = noted
    assert before.keys() == after.keys()
    return [name for name in before if before[name] != after[name]]


CAUSES = {
    "`train` section in params.yaml": lambda item: (
        item.model_copy(update={"lr": 0.2}) if hasattr(item, "lr") else None
    ),
    "kind of device": lambda item: torch.device("cuda") if isinstance(item, torch.device) else None,
    "content of data/prepared": lambda _: Path("data/b").write_text("c") and None,
    "code in stages/": lambda _: Path("stages/model/new.py").write_text("a = 1\n") and None,
}


@pytest.mark.parametrize("name", CAUSES)
def test_whatever_changes_the_result_changes_the_fingerprint_under_its_name(
    workspace, monkeypatch, name
):
    shutil.copytree(ROOT / "stages", "stages")
    monkeypatch.setattr(module, "CODE", Path("stages"))
    for path in (Path("data/a"), Path("data/b")):
        path.write_text(path.name)
    assert named_differences(monkeypatch, lambda _: None) == []
    assert named_differences(monkeypatch, CAUSES[name]) == [name]


@pytest.mark.parametrize("changed", ["parameter", "data"])
def test_a_checkpoint_of_another_fingerprint_is_not_used(
    workspace, change, kill_after, capsys, changed
):
    change({"train.epochs": 9})
    prepare.main()
    kill_after(4)
    with pytest.raises(Killed):
        train.main()
    kill_after(-1)
    change({"train.lr": 0.05} if changed == "parameter" else {"prepare.seed": 1})
    prepare.main()
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


@pytest.mark.parametrize("seed", range(20))
def test_training_starts_anew_from_a_damaged_checkpoint_and_says_so(killed, capsys, seed):
    path, expected = killed
    content = bytearray(path.read_bytes())
    generator = random.Random(seed)  # noqa: S311 (places to damage)
    place = generator.randrange(len(content))
    if seed % 2:
        del content[place:]
    else:
        content[place] ^= 1 << generator.randrange(8)
    path.write_bytes(content)
    train.main()
    printed = capsys.readouterr()
    assert printed.err == f"train: {path} is damaged. Training starts anew.\n"
    assert "resumed" not in printed.out
    assert contents(TRAINED) == expected


def test_a_checkpoint_put_in_the_place_of_another_is_damaged(killed, change, kill_after, capsys):
    path, expected = killed
    change({"train.epochs": 9, "train.lr": 0.02})
    kill_after(4)
    with pytest.raises(Killed):
        train.main()
    [other] = {*checkpoints()} - {path}
    shutil.copy(other, path)
    change({"train.epochs": 9, "train.lr": 0.1})
    kill_after(-1)
    train.main()
    assert "is damaged" in capsys.readouterr().err
    assert contents(TRAINED) == expected


def test_a_full_disk_stops_no_training_and_is_reported(
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
    monkeypatch.setattr(os, "fsync", no_space)
    train.main()
    errors = capsys.readouterr().err
    assert re.fullmatch(
        r"train: \.resume/\w+\.pt cannot be written: No space left on device. Training goes on.\n",
        errors,
    ), "once a minute"
    assert contents(TRAINED) == expected
    assert not checkpoints()


def test_checkpoints_that_nobody_continues_are_deleted_after_30_days(workspace, change):
    change({"train.epochs": 2})
    prepare.main()
    Path(".resume").mkdir()
    for name, days in {"old.pt": 31, "young.pt": 29, "old.pt.123": 31, "notes.txt": 31}.items():
        path = Path(".resume", name)
        path.touch()
        os.utime(path, (time.time() - days * 24 * 3600,) * 2)
    train.main()
    assert [path.name for path in checkpoints()] == ["notes.txt", "young.pt"]


def test_a_signal_after_the_last_step_ends_the_process(workspace, change, monkeypatch):
    calls, killed = [], []
    change({"train.epochs": 2})
    prepare.main()

    def check(*_):
        calls.append(1)
        if len(calls) == 3:  # one for each epoch, and the last one
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(train, "require_finite", check)
    monkeypatch.setattr(module.os, "kill", lambda pid, signum: killed.append((pid, signum)))
    train.main()
    assert killed[-1] == (os.getpid(), signal.SIGTERM)


def ignore_no_signal():
    for item in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
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

    def times():
        return {file: file.stat().st_mtime for file in folder.glob(".resume/*.pt")}

    before = times()
    started = Started(folder, arguments, environment)
    wait_until(lambda: times() != before)
    return started


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
def test_a_second_ctrl_c_ends_the_process_at_once(long_job):
    folder, _ = long_job
    params = folder / "params.yaml"
    text = params.read_text().replace("rows: 1000 ", "rows: 2000000 ")
    params.write_text(text.replace("hidden: [] ", "hidden: [2000] "))  # a step takes half a minute
    assert command(folder, sys.executable, "-m", "stages.prepare").returncode == 0
    started = Started(folder, TRAIN, {})
    time.sleep(8)
    started.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert started.process.poll() is None, "the step goes on"
    printed = started.stop(signal.SIGINT)
    assert "stopped" not in printed


@pytest.mark.slow
def test_a_trainer_saves_and_stops_when_dvc_has_died(long_job):
    folder, expected = long_job
    start(folder, ["dvc", "repro", "train"]).stop(signal.SIGKILL)  # waits until the pipe closes
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
def test_the_same_training_twice_at_once_ends_with_the_same_bits(long_job, tmp_path):
    folder, expected = long_job
    other = shutil.copytree(folder, tmp_path / "other")
    first = start(folder)
    second = command(other, *TRAIN, environment={"DVC_ROOT": str(folder)})
    assert second.returncode == 0, second.stderr
    printed, _ = first.process.communicate(timeout=120)
    assert first.process.returncode == 0, printed
    assert contents(folder / TRAINED) == contents(other / TRAINED) == expected
    assert not checkpoints(folder)


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
    assert not checkpoints(folder)


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
    ("killed", "torchrun"), [("one rank", None), ("all", "--standalone --nproc-per-node=3")]
)
def test_ranks_resume_with_another_number_of_them(large_run, tmp_path, killed, torchrun):
    folder, expected = shutil.copytree(large_run[0], tmp_path / "copy"), large_run[1]
    started = start(folder, TORCHRUN="--standalone --nproc-per-node=2")
    agent = started.process.pid
    ranks = [int(pid) for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]
    assert len(ranks) == 2
    for pid in ranks if killed == "all" else ranks[:1]:
        os.kill(pid, signal.SIGKILL)
    started.process.communicate(timeout=60)
    assert started.process.returncode == 1
    assert not (folder / TRAINED).exists()
    result = command(folder, *TRAIN, environment={"TORCHRUN": torchrun} if torchrun else {})
    assert result.returncode == 0, result.stderr
    assert RESUMED.search(result.stdout)
    assert contents(folder / TRAINED) == expected


@pytest.mark.slow
@pytest.mark.parametrize("target", ["all", "torchrun alone, by SIGKILL"])
def test_ranks_end_at_a_signal_and_resume(large_run, tmp_path, target):
    folder, expected = shutil.copytree(large_run[0], tmp_path / "copy"), large_run[1]
    started = start(folder, TORCHRUN="--standalone --nproc-per-node=2")
    if target == "all":
        os.killpg(started.process.pid, signal.SIGTERM)
    else:
        started.process.kill()
    printed, _ = started.process.communicate(timeout=60)
    assert started.process.returncode != 0
    assert "the next run goes on from epoch" in printed
    assert not (folder / TRAINED).exists()
    result = command(folder, *TRAIN)
    assert result.returncode == 0, result.stderr
    assert RESUMED.search(result.stdout)
    assert contents(folder / TRAINED) == expected

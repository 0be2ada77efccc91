"""`make sweep`: several experiments by DVC's queue, and how it ends when one of them fails."""

import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import command


def test_an_experiment_that_fails_fails_the_sweep_and_shows_its_log(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    sweep = "train.lr=choice(-1, 0.05) train.hidden=[]"
    end = command(folder, "python", ".ci/sweep.py", "2", sweep)
    assert end.returncode == 1
    assert end.stdout.count("params.yaml: `train.lr` must be greater than 0. Got -1.") == 1
    assert end.stderr.splitlines()[-1] == (
        "sweep: 1 of 2 experiments did not succeed; see their logs above. The same sweep again goes"
        " on where a training was stopped; `dvc queue remove --failed` forgets those that failed."
    )
    names = command(folder, "dvc", "exp", "list", "--name-only").stdout.split()
    assert len(names) == 1, "the other is kept"


def test_an_interrupt_ends_the_waiting_and_says_what_goes_on(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    words = [sys.executable, ".ci/sweep.py", "1", "train.epochs=300"]
    sweep = subprocess.Popen(
        words, cwd=folder, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )  # fmt: skip
    while not sweep.stderr.read(1).startswith("s"):  # the bar
        assert sweep.poll() is None
    sweep.send_signal(signal.SIGINT)
    _, errors = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert errors.splitlines()[-1].startswith("sweep: what is queued by now goes on unattended")
    assert "Traceback" not in errors
    deadline = time.monotonic() + 120
    while "Success" not in command(folder, "dvc", "queue", "status").stdout:
        assert time.monotonic() < deadline
        time.sleep(1)


@pytest.mark.parametrize(
    ("workers", "sweep"), [("0", "train.lr=1"), ("abc", "train.lr=1"), ("2", ""), ("2", " ")]
)
def test_a_sweep_that_cannot_be_is_refused_and_queues_nothing(quick, tmp_path, workers, sweep):
    folder = shutil.copytree(quick, tmp_path / "copy")
    end = command(folder, "python", ".ci/sweep.py", workers, sweep)
    assert end.returncode == 1
    assert end.stderr == (
        "sweep: give 1 to 99 workers, and what to try: make sweep WORKERS=2"
        f" SWEEP='train.lr=choice(0.1,0.3)'. Got WORKERS={workers} SWEEP='{sweep}'.\n"
    )
    assert "No experiment tasks" in command(folder, "dvc", "queue", "status").stdout

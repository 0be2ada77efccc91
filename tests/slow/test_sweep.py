"""`make sweep`: several experiments in DVC's queue; failures, interrupts and wrong arguments."""

import re
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
    result = command(folder, "python", ".ci/sweep.py", "2", sweep)
    assert result.returncode == 1
    assert result.stdout.count("params.yaml: `train.lr` must be greater than 0. Got -1.") == 1
    assert result.stderr.splitlines()[-1] == (
        "sweep: 1 of 2 experiments did not succeed; see their logs above. To resume trainings that"
        " were stopped, run the same sweep again. `dvc queue remove --failed` forgets those that"
        " failed."
    )
    names = command(folder, "dvc", "exp", "list", "--name-only").stdout.split()
    assert len(names) == 1, "the other is kept"


def test_an_interrupt_ends_the_waiting_and_experiments_go_on(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    arguments = [sys.executable, ".ci/sweep.py", "1", "train.epochs=300"]
    sweep = subprocess.Popen(
        arguments, cwd=folder, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )  # fmt: skip
    while not sweep.stderr.read(1).startswith("s"):  # of the progress bar
        assert sweep.poll() is None
    sweep.send_signal(signal.SIGINT)
    _, errors = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert errors.splitlines()[-1].startswith(
        "sweep: no longer waiting. Experiments that are queued go on"
    )
    assert "Traceback" not in errors
    deadline = time.monotonic() + 120
    while "Success" not in command(folder, "dvc", "queue", "status").stdout:
        assert time.monotonic() < deadline
        time.sleep(1)


def test_the_bar_moves_with_each_end_and_says_what_runs(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    sweep = "train.lr=choice(0.04, 0.05) train.epochs=3"
    result = command(folder, "python", ".ci/sweep.py", "1", sweep)
    assert result.returncode == 0, result.stderr
    bars = re.findall(r"(\d)/2 \[.*running: ([^]]*)\]", result.stderr)
    for expected in (
        ("0", "train.lr=0.04, train.epochs=3"),
        ("1", "train.lr=0.05, train.epochs=3"),
        ("2", "nothing"),
    ):
        assert expected in bars


def test_a_sweep_in_a_shallow_clone_says_why_it_cannot(quick, tmp_path):
    command(tmp_path, "git", "clone", "-q", "--depth", "1", f"file://{quick}", "shallow")
    result = command(tmp_path / "shallow", "python", ".ci/sweep.py", "1", "train.lr=0.05")
    assert result.returncode == 1
    assert result.stderr == (
        "sweep: this is a shallow clone, in which DVC loses the results of experiments. Run"
        " `git fetch --unshallow`, then sweep again.\n"
    )


@pytest.mark.parametrize(("workers", "sweep"), [("0", "train.lr=1"), ("2", " ")])
def test_wrong_arguments_of_a_sweep_are_refused_and_queue_nothing(quick, tmp_path, workers, sweep):
    folder = shutil.copytree(quick, tmp_path / "copy")
    result = command(folder, "python", ".ci/sweep.py", workers, sweep)
    assert result.returncode == 1
    assert result.stderr == (
        "sweep: give 1 to 99 workers and what to try, as in: make sweep WORKERS=2"
        f" SWEEP='train.lr=choice(0.1,0.3)'. Got WORKERS={workers} SWEEP='{sweep}'.\n"
    )
    assert "No experiment tasks" in command(folder, "dvc", "queue", "status").stdout

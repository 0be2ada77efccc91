"""Three hosts give the bits of one process; they refuse and end together, and two can go on."""

import os
import shutil
import time

import psutil
import pytest

from tests.conftest import command, contents, copy_project
from tests.slow.hosts import NAMES, by_name, start, three_hosts

EPOCHS = 1000
SILENCE_SECONDS = 5
MAX_STOP_SECONDS = 40  # also for the end of torchrun and DVC, on a busy machine
CHANGES = {
    "params.yaml": [
        ("rows: 1000 ", "rows: 1000000 "), (" epochs: 200", f" epochs: {EPOCHS}"),
    ],
    "stages/training/ranks.py": [("SILENCE_SECONDS = 60", f"SILENCE_SECONDS = {SILENCE_SECONDS}")],
    "stages/training/checkpoint.py": [("INTERVAL_SECONDS = 2.0", "INTERVAL_SECONDS = 0.2")],
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with three blocks of training rows, in which tests wait less than users."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    for name, replacements in CHANGES.items():
        replace(folder / name, *replacements)
    result = command(folder, "dvc", "repro", "prepare")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def expected(project, tmp_path_factory):
    """What one process writes."""
    folder = shutil.copytree(project, tmp_path_factory.mktemp("one") / "copy")
    result = command(folder, "python", "-m", "stages.train")
    assert result.returncode == 0, result.stderr
    return contents(folder / "models/trained")


@pytest.fixture
def hosts(project, tmp_path):
    try:
        with three_hosts(tmp_path, project) as hosts:
            yield hosts
    except (PermissionError, FileNotFoundError) as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"this user may not make hosts: {error}")


def replace(path, *replacements):
    text = path.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def wait_for_checkpoint(host, process):
    while not any((host.folder / ".resume").glob("*.pt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_three_hosts_train_the_model_of_one_process_and_wait_for_a_slow_one(hosts, expected):
    processes = start(hosts, by_name)
    wait_for_checkpoint(hosts[0], processes[0])
    _torchrun, rank = psutil.Process(processes[2].pid).children(recursive=True)
    rank.suspend()
    time.sleep(SILENCE_SECONDS + 3)
    rank.resume()
    for process in processes:
        printed, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert errors == "", "torchrun can be kept silent"
        assert printed.count("epochs on cpu") == (process == processes[0])
    assert contents(hosts[0].folder / "models/trained") == expected
    assert not any((host.folder / "models/trained").exists() for host in hosts[1:])
    rows_bytes = (hosts[0].folder / "data/prepared/train.parquet").stat().st_size
    bytes_per_epoch = max(host.sent_bytes() for host in hosts) / EPOCHS
    assert bytes_per_epoch < rows_bytes / 1000, "hosts send sums, not rows"


@pytest.mark.parametrize("event", ["cut_off", "kill"])
def test_hosts_stop_when_one_is_lost_and_the_others_can_go_on(hosts, expected, event):
    processes = start(hosts)
    wait_for_checkpoint(hosts[0], processes[0])
    getattr(hosts[2], event)()
    start_seconds = time.monotonic()
    for process in processes[:2]:
        _, errors = process.communicate(timeout=MAX_STOP_SECONDS)
        assert process.returncode != 0
        ours = [line for line in errors.splitlines() if line.startswith("train: ")]
        assert len(ours) == 1
        assert ours[0].startswith("train: another rank has ended, or its host does not answer.")
        assert errors.index(ours[0]) < errors.index("Traceback"), "only torchrun has one"
        assert errors.count("Traceback") == 1
    assert time.monotonic() - start_seconds < MAX_STOP_SECONDS
    processes[2].communicate(timeout=MAX_STOP_SECONDS)  # a host that is cut off ends, too
    processes = start(hosts[:2])
    printed, errors = processes[0].communicate(timeout=120)
    processes[1].communicate(timeout=MAX_STOP_SECONDS)
    assert [process.returncode for process in processes] == [0, 0], errors
    assert "train: resumed at epoch " in printed
    assert contents(hosts[0].folder / "models/trained") == expected


def test_hosts_that_differ_refuse_and_are_named(hosts):
    two, three = (host.folder for host in hosts[1:])
    replace(two / "params.yaml", (" lr: 0.1 ", " lr: 0.2 "))
    replace(two / "data/prepared/statistics.json", ("{", "{ "))
    replace(three / "stages/training/gradient.py", ("import", "import "))
    (three / "numpy-0.0.dist-info").mkdir()
    (three / "numpy-0.0.dist-info/METADATA").write_text("Name: numpy\nVersion: 0.0\n")
    for process in start(hosts):
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert [line for line in errors.splitlines() if line.startswith("train: ")] == [
            f"train: rank {rank} (on {NAMES[rank]}) and rank 0 (on host1) differ in the {name}."
            " Make it the same on all hosts."
            for rank, name in [
                (1, "content of data/prepared"),
                (1, "`train` section in params.yaml"),
                (2, "code in stages/"),
                (2, "versions of the packages"),
            ]
        ]
    assert not (hosts[0].folder / "models/trained").exists()

"""Several ranks give the bits of one; they refuse and end together."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml

from tests.conftest import ROOT, command

pytestmark = pytest.mark.slow

DEFAULT = {}
NETWORK = {  # two blocks a step, four a validation pass
    "prepare": {"rows": 1_200_000, "validation": 0.7},
    "train": {
        "hidden": [4],
        "batch_size": 300_000,
        "epochs": 2,
        "optimizer": "adam",
        "weight_decay": 0.1,
        "patience": 9,
    },
}
MOMENTUM = {
    "prepare": {"rows": 1_200_000, "validation": 0.7},
    "train": {
        "momentum": 0.9, "weight_decay": 0.01, "schedule": "cosine", "epochs": 2,
        "batch_size": 300_000,
    },
}  # fmt: skip
LBFGS = {
    "prepare": {"rows": 800_000, "dtype": "float64"},
    "train": {"optimizer": "lbfgs", "lr": 1.0, "epochs": 2},
}


@pytest.fixture(
    scope="module",
    params=[DEFAULT, NETWORK, MOMENTUM, LBFGS],
    ids=["default", "network", "momentum", "lbfgs"],
)
def prepared(request, tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("ranks"), request.param)


def prepare(folder, changes):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in changes.items():
        content[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("*.pyc"))
    (folder / "data/raw").mkdir(parents=True)
    assert command(folder, "python", "-m", "stages.prepare").returncode == 0
    return folder


def train(folder, **environment):
    result = command(folder, "python", "-m", "stages.train", environment=environment)
    assert result.returncode == 0, result.stderr
    outputs = sorted((folder / "models/trained").iterdir())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in outputs)).hexdigest()
    return digest, result.stdout


def test_the_number_of_ranks_and_threads_changes_no_bit(prepared):
    expected, _ = train(prepared)
    for num_ranks, num_threads in [(2, 1), (3, 2)]:
        digest, printed = train(
            prepared,
            TORCHRUN=f"--standalone --nproc-per-node={num_ranks}",
            OMP_NUM_THREADS=str(num_threads),
        )
        assert digest == expected, (num_ranks, num_threads)
        assert printed.count("epochs on cpu") == 1, "only rank 0 prints and writes"


def start(folder, rank, port):
    environment = {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("path", "old", "new", "named"),
    [
        ("params.yaml", "lr: 0.1", "lr: 0.2", "`train` section in params.yaml"),
        (
            "stages/training/gradient.py",
            "import",
            "import  ",
            "code in stages/",
        ),
        ("params.yaml", "m: 0.7", "m: 0.8", "content of data/prepared"),
    ],
)
def test_ranks_that_differ_refuse_to_start_and_name_what_differs(tmp_path, path, old, new, named):
    folders = [
        prepare(tmp_path / name, {}) for name in ("one", "other") if not (tmp_path / name).mkdir()
    ]
    changed = folders[1] / path
    changed.write_text(changed.read_text().replace(old, new))
    assert command(folders[1], "python", "-m", "stages.prepare").returncode == 0
    port = free_port()
    ranks = [start(folder, rank, port) for rank, folder in enumerate(folders)]
    for process in ranks:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        host = socket.gethostname()
        sentence = f"train: rank 1 (on {host}) and rank 0 (on {host}) differ in the {named}. Make"
        assert sentence in errors
        assert errors.count("train: rank") == 1
    assert not (folders[0] / "models/trained").exists()


@pytest.mark.parametrize(("victim", "rows"), [(0, 800_000), (1, 800_000), (0, 1000)])
def test_a_rank_that_dies_ends_the_others_with_a_sentence(tmp_path, victim, rows):
    folder = prepare(tmp_path, {"prepare": {"rows": rows}, "train": {"epochs": 100_000}})
    port = free_port()
    ranks = [start(folder, rank, port) for rank in range(2)]
    while not [*folder.glob(".resume/*.pt")]:  # until both are training
        assert [process.poll() for process in ranks] == [None, None]
        time.sleep(0.1)
    assert [process.poll() for process in ranks] == [None, None]
    ranks[victim].send_signal(signal.SIGKILL)
    _, errors = ranks[1 - victim].communicate(timeout=30)
    ranks[victim].communicate()
    assert ranks[1 - victim].returncode == 1
    assert errors.splitlines()[-1].startswith("train: another rank has ended, or its host")
    assert "Traceback" not in errors
    assert not (folder / "models/trained").exists()


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"TORCHRUN": "'"}, "TORCHRUN is not a command line: No closing quotation. Got: '"),
        (
            {"RANK": "0"},
            "train: RANK is set, but the other ranks cannot be reached. Start this stage with"
            " torchrun, or unset RANK. (",
        ),
    ],
)
def test_a_wrong_environment_is_refused_in_one_sentence(tmp_path, environment, sentence):
    folder = prepare(tmp_path, {})
    result = command(folder, "python", "-m", "stages.train", environment=environment)
    assert result.returncode == 1
    assert result.stderr.startswith(sentence)
    assert "Traceback" not in result.stderr

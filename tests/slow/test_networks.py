"""One file, stages/network.py, makes the whole pipeline train and release another network."""

import importlib.util
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, command, contents
from tests.slow.test_pages import link_environment, matches, sessions

PAGE = (ROOT / "docs/extending.md").read_text()
SHIPPED = (ROOT / "stages/network.py").read_text()


def blocks(kind: str) -> list[str]:
    """The blocks of the page in a language, such as ``python file=stages/network.py``."""
    return re.findall(rf"```{re.escape(kind)}\n(.*?)```", PAGE, re.DOTALL)


def with_class(code: str, call: str) -> str:
    """The shipped file, with a class of its own in place of its layers."""
    start = SHIPPED.index("    layers: list")
    end = SHIPPED.index("def build_optimizer")
    return f"{SHIPPED[:start]}    return {call}\n\n\n{code}\n\n{SHIPPED[end:]}"


LINEAR = """
class Linear(nn.Module):
    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_inputs, 1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight + self.bias
"""
BRANCHES = """
class Branches(nn.Module):
    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, 1)
        self.curved = nn.Sequential(nn.Linear(num_inputs, 8), nn.Hardswish(), nn.Linear(8, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs) + self.curved(inputs)
"""
LARGE = """
class Large(nn.Sequential):
    def __init__(self, num_inputs: int) -> None:
        middle = [nn.Linear(1000, 1000), nn.LeakyReLU()]
        super().__init__(nn.Linear(num_inputs, 1000), nn.LeakyReLU(), *middle, nn.Linear(1000, 1))
"""
FILES = {
    "residual": blocks("python file=stages/network.py")[0],
    "branches": with_class(BRANCHES, "Branches(num_inputs)"),
    "linear": with_class(LINEAR, "Linear(num_inputs)").replace(
        "from torch import Tensor", "import torch\nfrom torch import Tensor"
    ),
    "large": with_class(LARGE, "Large(num_inputs)"),
}
# Two blocks and two steps in an epoch, so that threads and ranks have something to add.
CHANGES = {
    "rows: 1000": "rows: 20000", "epochs: 200": "epochs: 3", "hidden: []": "hidden: [8, 8]",
    "lr: 0.1": "lr: 0.01", "batch_size: ": "batch_size: 10000",
}  # fmt: skip
TRAIN = [sys.executable, "-m", "stages.train"]


def set_up(finished: Path, folder: Path, text: str) -> Path:
    shutil.copytree(finished, folder)
    params = (folder / "params.yaml").read_text()
    for old, new in CHANGES.items():
        assert old in params
        params = params.replace(old, new, 1)
    (folder / "params.yaml").write_text(params)
    (folder / "stages/network.py").write_text(text)
    changed = command(folder, "git", "status", "--porcelain", "stages", "dvc.yaml").stdout
    assert changed.split() == ["M", "stages/network.py"]
    return folder


def run(folder: Path, *words: str, **environment: str) -> str:
    end = command(folder, *words, environment=environment)
    assert end.returncode == 0, end.stdout + end.stderr
    return end.stdout


def stop_in_the_middle(folder: Path) -> None:
    """Kill a training as soon as it has written a checkpoint; every step writes one."""
    program = (
        "from stages.training import checkpoint; checkpoint.INTERVAL_SECONDS = 0.0;"
        "checkpoint.MAX_SAVING_FRACTION = 1e9; from stages import train; train.main()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=folder)
    while not [*folder.glob(".resume/*.pt")] and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("name", FILES)
def test_a_network_in_its_own_file_has_the_whole_pipeline(finished, tmp_path, name):
    folder = set_up(finished, tmp_path / "project", FILES[name])
    printed = run(folder, "dvc", "repro")
    assert ("kind of CPU only: gelu" in printed) == (name == "residual")
    assert "save: PyTorch in pieces and PyTorch predict the same" in printed
    assert "save: ONNX Runtime and PyTorch predict the same" in printed
    assert run(folder, "dvc", "repro").count("didn't change, skipping") == 4
    trained = contents(folder / "models/trained")
    for ranks in ({}, {"TORCHRUN": "--standalone --nproc-per-node=2", "OMP_NUM_THREADS": "3"}):
        shutil.rmtree(folder / "models/trained")
        if not ranks:
            stop_in_the_middle(folder)
        printed = run(folder, *TRAIN, **ranks)
        assert ("train: resumed at " in printed) == (not ranks)
        assert contents(folder / "models/trained") == trained
    card = (folder / "models/release/README.md").read_text()
    [in_project, in_onnx] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    predicted = json.loads(run(folder, "python", "-c", in_project))[0][0]
    found = json.loads(run(folder / "models/release", "python", "-c", in_onnx))[0][0]
    assert found == pytest.approx(predicted, rel=1e-4)
    (folder / "new.csv").write_text("x\n0.5\n0.25\n")
    lines = run(folder, "python", "-m", "stages.predict", "models/release", "new.csv").splitlines()
    assert len(lines) == 3
    if name != "residual":  # each of the rest starts PyTorch once more
        return
    (folder / "stages/network.py").write_text(SHIPPED)
    for words in (["evaluate"], ["predict", "models/release", "new.csv"], ["save"]):
        end = command(folder, "python", "-m", f"stages.{words[0]}", *words[1:])
        assert (end.returncode, end.stderr.count("\n")) == (1, 1), end.stderr
        assert "than stages/network.py builds. Restore that file, or train again." in end.stderr


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    return link_environment(shutil.copytree(finished, tmp_path_factory.mktemp("page") / "copy"))


def check_sessions(folder: Path, section: str) -> None:
    """Run the console blocks of a section of the page, and compare what they print."""
    [text] = re.findall(
        rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE
    )
    for line, expected in sessions(text):
        end = command(folder, "bash", "-c", f"{line} 2>&1")
        assert end.returncode == 0, end.stdout
        assert matches(expected, end.stdout.splitlines()), end.stdout


def test_the_pages_network_and_loss_train_as_printed(project):
    path = project / "stages/network.py"
    path.write_text(FILES["residual"])
    check_sessions(project, "Your own network")
    [loss] = blocks("python append=stages/network.py")
    path.write_text(SHIPPED + loss)
    check_sessions(project, "Your own loss")
    rows = "import pandas; print((pandas.read_csv('metrics/plots/fit.csv').residual < 0).mean())"
    assert 0.8 < float(run(project, "python", "-c", rows)) < 0.97, "90 % lie below"


def test_the_pages_query_feeds_the_pipeline(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    (folder / "stages/query.py").write_text(blocks("python file=stages/query.py")[0])
    path = folder / "dvc.yaml"
    path.write_text(
        path.read_text().replace("stages:\n", f"stages:\n{blocks('yaml file=stage')[0]}")
    )
    with sqlite3.connect(folder / "data/measurements.sqlite") as database:
        database.execute("CREATE TABLE measurements (id, temperature, pressure, yield)")
        rows = [(i, i % 7, i % 11, 2 * (i % 7) + i % 11) for i in range(100, 0, -1)]
        database.executemany("INSERT INTO measurements VALUES (?, ?, ?, ?)", rows)
    params = folder / "params.yaml"
    text = params.read_text().replace("source: line", "source: measurements.csv")
    params.write_text(text.replace("target: y ", "target: yield "))
    assert "learned yield = 2·temperature + 1·pressure" in run(folder, "dvc", "repro")
    assert run(folder, "dvc", "repro").count("didn't change, skipping") == 5
    database.execute("INSERT INTO measurements VALUES (0, 1, 1, 3)")
    database.commit()
    assert "101 rows from measurements.csv" in run(folder, "dvc", "repro")


OTHERS = blocks("python")
EXPECTED = dict(zip(OTHERS[1:], blocks("text"), strict=True))


@pytest.mark.parametrize("code", OTHERS, ids=["tensorboard", "notebook", "scikit-learn"])
def test_the_pages_other_programs_run_as_printed(finished, tmp_path, code):
    packages = {name for name in ("tensorboard", "sklearn") if name in code}
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing and "CI" not in os.environ:
        pytest.skip(f"{missing[0]} is not installed")
    folder = shutil.copytree(finished, tmp_path / "copy")
    assert run(folder, "python", "-c", code) == EXPECTED.get(code, "")

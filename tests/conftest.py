"""Tests run with portable numerics; those that need a project get one of their own."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["ATEN_CPU_CAPABILITY"] = "default"  # before the first tensor operation of this process
os.environ["MKL_CBWR"] = "COMPATIBLE"

import numpy as np
import yaml
from numpy.typing import NDArray

from stages.base import threads
from stages.base.errors import UserError
from stages.base.files import RAW
from stages.base.params import TrainParams, load_params
from stages.tables.columns import TableColumn, choose_columns, read_rows
from stages.tables.table import Table
from tests.verify import ROOT, copy_files

Change = Callable[..., None]
IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@localhost")  # of who commits


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow folders' tests as slow, and run quick tests first."""
    for item in items:
        if {"slow", "faults"} & {*item.path.relative_to(ROOT).parts}:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture
def use_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Work with so many threads from now on."""

    def use(num_threads: int) -> None:
        pool = threads.ThreadPoolExecutor(num_threads, initializer=threads._use_one_thread)
        monkeypatch.setattr(threads, "num_threads", lambda: num_threads)
        monkeypatch.setattr(threads, "_pool", lambda: pool)

    return use


def train_params(**changes: Any) -> TrainParams:
    """The parameters of `train` in the project's params.yaml, with some changes."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]
    return TrainParams.model_validate(content | changes)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: parameters and raw data of the project, nothing else."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "data/raw", tmp_path / "data/raw")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the processes that stages start
    return tmp_path


@pytest.fixture
def change(workspace: Path) -> Change:
    """Set parameters by their dotted names: ``change({"train.lr": 0.01})``."""

    def set_values(values: dict[str, Any]) -> None:
        path = workspace / "params.yaml"
        content = yaml.safe_load(path.read_text())
        for name, value in values.items():
            *sections, key = name.split(".")
            section = content
            for part in sections:
                section = section[part]
            section[key] = value
        path.write_text(yaml.safe_dump(content))

    return set_values


@pytest.fixture
def raw(workspace: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file of data/raw."""

    def write(name: str, content: str | bytes) -> Path:
        path = workspace / "data/raw" / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def read(change: Change) -> Callable[..., tuple[list[TableColumn], NDArray[np.float64]]]:
    """Read a file of data/raw with the given parameters of `prepare`, as float64."""

    def read_table(name: str, **prepare: Any) -> tuple[list[TableColumn], NDArray[np.float64]]:
        values = {"dtype": "float64", **prepare}
        change({f"prepare.{key}": value for key, value in values.items()})
        params = load_params().prepare
        table = Table(RAW / name, params.delimiter)
        columns = choose_columns(table, params)
        batches = read_rows(table, columns, params)
        return columns, np.concatenate([np.empty((0, len(columns))), *batches])

    return read_table


@pytest.fixture
def refusal(read: Callable[..., object]) -> Callable[..., str]:
    """The sentence with which a table is refused."""

    def sentence(name: str, **prepare: Any) -> str:
        with pytest.raises(UserError) as error:
            read(name, **prepare)
        return str(error.value)

    return sentence


def user_environment() -> dict[str, str]:
    """The environment of a user who has activated this environment."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PYTEST", "ATEN", "MKL", "OMP", "DVC", "GIT"))
    }
    return environment | {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}


def command(folder: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder`` as a user would, with this environment's programs first."""
    environment = user_environment() | options.pop("environment", {})
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False, **options
    )


def copy_project(target: Path) -> Path:
    """A repository with the project's files as they are now, and no output of any stage."""
    copy_files(ROOT, target)
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "Copy"]):
        command(target, "git", *IDENTITY, *words)
    return target


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files in a folder, by name."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


def without_override() -> None:
    """Give up root's right to write and read everywhere: PR_CAPBSET_DROP of CAP_DAC_…."""
    if os.geteuid() == 0:
        for override in (1, 2):
            ctypes.CDLL(None).prctl(24, override, 0, 0, 0)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project after `dvc repro`; tests copy it, and do not change it."""
    folder = copy_project(tmp_path_factory.mktemp("finished"))
    end = command(folder, "dvc", "repro", "--force")
    assert end.returncode == 0, end.stderr
    return folder


@pytest.fixture(scope="session")
def quick(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without ONNX, whose export takes longer than all else."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("quick") / "copy")
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("onnx: true", "onnx: false"))
    for words in (["dvc", "repro"], ["git", *IDENTITY, "commit", "-qam", "Quick"]):
        end = command(folder, *words)
        assert end.returncode == 0, end.stderr
    return folder


@pytest.fixture
def settings_come_back(monkeypatch):
    """Undo what choosing an accelerator sets for the whole process."""
    import torch  # noqa: PLC0415 (most programs that import this file do not need it)

    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

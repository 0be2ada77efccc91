"""One release, made once for all tests of this room."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from stages import evaluate, prepare, save, train
from tests.conftest import ROOT


def run_here(name: str, folder: Path) -> bool:
    """Run a module of `save` in this process, which has already imported PyTorch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, str(folder)])
        importlib.import_module(name).main()
    return True


@pytest.fixture
def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `save` export and prove in this process."""
    monkeypatch.setattr(save, "run_module", run_here)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages have run; tests do not change it."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "data/raw").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(save, "run_module", run_here)
        for stage in (prepare, train, evaluate, save):
            stage.main()
    return folder

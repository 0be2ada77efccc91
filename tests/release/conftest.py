"""One release, made once for all tests of this room."""

import shutil
from pathlib import Path

import pytest

from stages import evaluate, prepare, save, train
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages have run; tests do not change it."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "data/raw").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (prepare, train, evaluate, save):
            stage.main()
    return folder

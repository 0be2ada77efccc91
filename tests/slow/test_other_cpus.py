"""Portable numerics give the same bytes on CPUs of other makers and ages, emulated by QEMU."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from stages.evaluate import FIGURE_ENVIRONMENT
from tests.conftest import ROOT, command

NETWORK = {"hidden": [8, 4], "batch_size": 64, "epochs": 20, "optimizer": "adam", "loss": "huber"}
LBFGS = {"hidden": [4], "optimizer": "lbfgs", "lr": 10.0, "epochs": 30}  # interpolates by roots
QEMU = shutil.which("qemu-x86_64")
# In one process: emulated, each import of PyTorch takes many seconds. The processes that stages
# start are not emulated by themselves.
STAGES = (
    "from stages import prepare, train, evaluate; prepare.main(), train.main(), evaluate.main()"
)
FIGURE = ["-m", "stages.scoring.figure", "metrics/plots"]
EXPORT = ["-m", "stages.release.export", "models"]


def run_stages(folder: Path, module: list[str], *emulator: str) -> dict[str, bytes]:
    python = [*emulator, shutil.which("python")]
    for words, environment in ((["-c", STAGES], {}), (module, FIGURE_ENVIRONMENT)):
        end = command(folder, *python, *words, environment=environment)
        assert end.returncode == 0, end.stderr
    files = [
        path
        for name in ("data/prepared", "models", "metrics")
        for path in (folder / name).rglob("*")
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


def run_job(folder: Path, changes: dict, module: list[str], *emulator: str) -> dict[str, bytes]:
    shutil.copytree(ROOT / "stages", folder / "stages")
    shutil.copytree(ROOT / "data/raw", folder / "data/raw")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train"] |= changes
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return run_stages(folder, module, *emulator)


@pytest.mark.skipif(
    QEMU is None and "CI" not in os.environ, reason="QEMU is not installed (Debian: qemu-user)"
)
@pytest.mark.parametrize(
    ("cpu", "changes", "module"),
    [
        ("IvyBridge", NETWORK, EXPORT),
        ("Haswell", LBFGS, FIGURE),
        ("Skylake-Server", {}, FIGURE),
        ("EPYC-Rome", NETWORK, FIGURE),
    ],
)
def test_another_cpu_writes_the_same_bytes(tmp_path, cpu, changes, module):
    expected = run_job(tmp_path / "own", changes, module)
    assert run_job(tmp_path / "other", changes, module, "qemu-x86_64", "-cpu", cpu) == expected

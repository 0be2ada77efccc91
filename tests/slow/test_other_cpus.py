"""Portable numerics give the same bytes on CPUs of other makers and ages, emulated by QEMU."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from stages.training.probe import PORTABLE
from tests.conftest import ROOT, command, contents

NETWORK = {
    "hidden": [8, 4], "batch_size": 64, "epochs": 20, "optimizer": "adam", "loss": "huber",
    "weight_decay": 0.1, "schedule": "cosine",
}  # fmt: skip
MOMENTUM = {"momentum": 0.9, "weight_decay": 0.01, "schedule": "cosine"}
LBFGS = {"hidden": [4], "optimizer": "lbfgs", "lr": 10.0, "epochs": 30}  # interpolates by roots
QEMU = shutil.which("qemu-x86_64")
# In one process: emulated, each import of PyTorch takes many seconds.
STAGES = """
from stages import prepare, train, evaluate
for stage in (prepare, train, evaluate):
    stage.main()
"""
ALL = f"{STAGES}from stages import save; save.main()"


def run_job(folder: Path, changes: dict, program: str, *emulator: str) -> dict[str, bytes]:
    shutil.copytree(ROOT / "stages", folder / "stages")
    shutil.copytree(ROOT / "data/raw", folder / "data/raw")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train"] |= changes
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    result = command(folder, *emulator, shutil.which("python"), "-c", program)
    assert result.returncode == 0, result.stderr
    return {
        f"{name}/{path}": content
        for name in ("data/prepared", "models", "metrics")
        for path, content in contents(folder / name).items()
    }


needs_qemu = pytest.mark.skipif(
    QEMU is None and "CI" not in os.environ, reason="QEMU is not installed (Debian: qemu-user)"
)


@needs_qemu
@pytest.mark.parametrize(
    ("cpu", "changes", "program"),
    [
        ("IvyBridge", NETWORK, ALL),
        ("Haswell", LBFGS, STAGES),
        ("Skylake-Server", MOMENTUM, STAGES),
        ("EPYC-Rome", NETWORK, STAGES),
    ],
)
def test_another_cpu_writes_the_same_bytes(tmp_path, cpu, changes, program):
    expected = run_job(tmp_path / "own", changes, program)
    assert run_job(tmp_path / "other", changes, program, "qemu-x86_64", "-cpu", cpu) == expected


def computed(*emulator: str) -> dict[str, list]:
    """The operations and hashes of each program of operations.py."""
    words = (*emulator, shutil.which("python"), "-m", "tests.slow.operations")
    result = command(ROOT, *words)
    assert result.returncode == 0, result.stderr
    return {name: found for name, *found in map(json.loads, result.stdout.splitlines())}


@pytest.fixture(scope="module")
def own():
    return computed()


def test_each_portable_operation_is_tried(own):
    tried = [{*names} for names, _ in own.values() if {*names} <= PORTABLE]
    assert set().union(*tried) == PORTABLE


@needs_qemu
@pytest.mark.parametrize("cpu", ["Nehalem", "EPYC-Rome"])  # without AVX and FMA, and with both
def test_portable_operations_have_the_same_bits_on_another_cpu(own, cpu):
    differing = {name for name, found in computed("qemu-x86_64", "-cpu", cpu).items()
                 if found != own[name]}  # fmt: skip
    assert {name for name in differing if {*own[name][0]} <= PORTABLE} == set()
    assert {"sqrt", "gelu"} <= differing, "an emulator that shows no difference proves nothing"

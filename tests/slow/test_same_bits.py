"""What dvc.yaml does not declare changes no byte of any output: the environment."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, command, contents, without_override

STAGES = ("prepare", "train", "evaluate", "save")
OUTPUTS = ("data/prepared", "models", "metrics")
# Several blocks in each split's file, in each step, and in the validation loss; in float64, which
# shows the last bit of a sum.
NETWORK = {
    "prepare": {"rows": 1_200_000, "validation": 0.3, "test": 0.3, "dtype": "float64"},
    "train": {
        "hidden": [8, 4], "batch_size": 200_000, "epochs": 2, "optimizer": "adam", "loss": "huber",
        "weight_decay": 0.1, "schedule": "cosine",
    },
}  # fmt: skip
IN_GERMAN = """
import locale, runpy, sys
locale.setlocale(locale.LC_ALL, "")
assert locale.localeconv()["decimal_point"] == ","
runpy.run_module(f"stages.{sys.argv[1]}", run_name="__main__")
"""


def project(folder: Path, changes: dict) -> Path:
    shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copytree(ROOT / "data/raw", folder / "data/raw")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in changes.items():
        params[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def outputs(folder: Path) -> dict[str, dict[str, bytes]]:
    return {name: contents(folder / name) for name in OUTPUTS}


def run_stages(folder: Path, program: tuple[str, ...] = (), **how) -> dict:
    for stage in STAGES:
        module = [*program, stage] if program else ["-m", f"stages.{stage}"]
        end = command(folder, "python", *module, **how)
        assert end.returncode == 0, end.stderr
    return outputs(folder)


LINE = {"save": {"onnx": False}}  # an export takes longer than all else


@pytest.fixture(scope="module", params=[LINE, NETWORK], ids=["default", "network"])
def job(request, tmp_path_factory):
    """Parameters, and the bytes that they give in one thread."""
    folder = project(tmp_path_factory.mktemp("expected"), request.param)
    return request.param, run_stages(folder, environment={"OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_NUM_THREADS": "3", "PYTHONOPTIMIZE": "1", "HOME": "/nonexistent", "COLUMNS": "20"},
        {"OMP_NUM_THREADS": "2", "TORCHRUN": "--standalone --nproc-per-node=2"}
        | {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "AVX2", "MKL_NUM_THREADS": "3"}
        | {"TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "12345", "PYTHONUTF8": "0", "LC_ALL": "C"},
        {"OMP_NUM_THREADS": "1", "TORCHRUN": "--standalone --nproc-per-node=3"}
        | {"ATEN_CPU_CAPABILITY": "avx512", "MKL_CBWR": "AUTO", "OPENBLAS_NUM_THREADS": "3"}
        | {"SOURCE_DATE_EPOCH": "1", "OPENBLAS_CORETYPE": "Haswell", "MPLBACKEND": "svg"},
    ],
    ids=lambda environment: ",".join(f"{k}={v}" for k, v in environment.items()),
)
def test_the_environment_changes_no_byte(tmp_path, job, environment):
    changes, expected = job
    folder = project(tmp_path / "an other, größer folder", changes)
    assert run_stages(folder, environment=environment) == expected


def test_neither_do_umask_and_a_home_that_is_read_only(tmp_path, job):
    def preexec() -> None:
        os.umask(0o077)
        without_override()

    changes, expected = job
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    folder = project(tmp_path / "project", changes)
    assert run_stages(folder, environment={"HOME": str(home)}, preexec_fn=preexec) == expected
    assert list(home.iterdir()) == []


@pytest.mark.skipif(
    not Path("/usr/share/i18n/locales/de_DE").exists() and "CI" not in os.environ,
    reason="there is nothing to make a German locale from (Debian: locales)",
)
def test_neither_does_a_decimal_comma(tmp_path, job):
    changes, expected = job
    words = ["localedef", "-i", "de_DE", "-f", "UTF-8", tmp_path / "de_DE.UTF-8"]
    subprocess.run(words, check=True, capture_output=True)
    german = {"LOCPATH": str(tmp_path), "LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8"}
    folder = project(tmp_path / "project", changes)
    assert run_stages(folder, program=("-c", IN_GERMAN), environment=german) == expected


def test_nor_does_dvc(tmp_path, job):
    changes, expected = job
    folder = project(tmp_path / "project", changes)
    for name in ("dvc.yaml", "requirements.txt", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    for words in (["git", "init"], ["dvc", "init"], ["dvc", "repro"]):
        end = command(folder, *words)
        assert end.returncode == 0, end.stderr
    assert outputs(folder) == expected

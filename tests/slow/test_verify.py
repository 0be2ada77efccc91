"""`make verify` must be seen to fail: one weight, one cell, one digit."""

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import command

ONE_BIT = """
def main_with_one_bit_changed() -> None:
    main()
    from pathlib import Path
    path = Path("{path}")
    content = bytearray(path.read_bytes())
    content[{position}] ^= 1
    path.write_bytes(content)


if __name__"""


@pytest.fixture
def folder(quick, tmp_path):
    return shutil.copytree(quick, tmp_path / "copy")


def verify(folder, **environment):
    end = command(folder, "python", "tests/verify.py", environment=environment)
    return end.returncode, end.stderr.splitlines()[-1] if end.stderr else end.stdout


def test_a_clean_copy_is_verified_and_the_project_only_read(folder):
    status, said = verify(folder)
    assert (status, said.splitlines()[-1]) == (0, "verify: everything is as dvc.lock certifies")
    assert command(folder, "git", "status", "--porcelain").stdout == ""


@pytest.mark.parametrize(
    ("stage", "path", "position"),
    [
        ("train", "models/trained/weights.safetensors", -12),
        ("prepare", "data/prepared/test.parquet", 100),
        ("evaluate", "metrics/plots/fit.csv", 100),
    ],
)
def test_one_bit_of_an_output_is_noticed_and_its_file_named(folder, stage, path, position):
    source = folder / f"stages/{stage}.py"
    changed = ONE_BIT.format(path=path, position=position)
    text = source.read_text().replace("    run(main)", "    run(main_with_one_bit_changed)")
    source.write_text(text.replace("\nif __name__", changed))
    status, said = verify(folder)
    assert status == 1
    assert said.startswith("verify: not as certified: ")
    assert path in said.rstrip(".").split(": ")[-1].split(", ")


def test_one_digit_of_the_committed_metrics_is_noticed(folder):
    path = folder / "metrics/evaluation.json"
    path.write_text(path.read_text().replace('"rows": 200', '"rows": 201'))
    assert verify(folder) == (1, "verify: not as certified: metrics/evaluation.json.")


def test_one_cell_of_a_raw_table_is_noticed(folder):
    path = folder / "data/raw/norris.csv"
    path.write_text(path.read_text().replace("0.2,0.1", "0.2,0.2"))
    assert verify(folder) == (1, "verify: not as certified: data/raw.")


def test_a_parameter_that_was_not_run_is_noticed(folder):
    path = folder / "dvc.lock"
    path.write_text(path.read_text().replace("onnx: false", "onnx: true"))
    assert verify(folder) == (1, "verify: not as certified: parameters in dvc.lock.")


def test_the_missing_committed_metrics_are_noticed(folder):
    (folder / "metrics/evaluation.json").unlink()
    assert verify(folder) == (1, "verify: not as certified: metrics/evaluation.json.")


def test_a_certificate_of_a_stage_that_is_no_more_is_noticed(folder):
    path = folder / "dvc.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("  save:\n")] + text[text.index("plots:\n  - ") :])
    status, said = verify(folder)
    assert status == 1
    assert said.startswith("verify: not as certified: models/release, ")


def test_a_table_that_dvc_tracks_and_oddly_named_neighbours_are_verified(folder, tmp_path):
    (folder / "data/raw/big.csv").write_text(
        "x,y\n" + "".join(f"{i},{i % 7}\n" for i in range(300))
    )
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("source: line ", "source: big.csv "))
    for words in (["dvc", "add", "data/raw/big.csv"], ["dvc", "repro"], ["git", "init", "nested"]):
        assert command(folder, *words).returncode == 0
    (folder / "linked").symlink_to(tmp_path)
    Path(os.fsdecode(bytes(folder) + b"/n\xff.txt")).touch()
    status, _ = verify(folder, GIT_DIR=f"{folder}/.git")  # as in a hook
    assert status == 0

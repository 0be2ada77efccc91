"""`make run` after DVC was killed while it wrote dvc.lock."""

import shutil

import pytest

from tests.conftest import command, contents

OUTPUTS = ("dvc.lock", "data/prepared", "models", "metrics")
FRACTIONS = [0.0, 0.3, 0.999]
LAST_LINES = range(1, 7)


@pytest.fixture(scope="module")
def folder(quick, tmp_path_factory):
    return shutil.copytree(quick, tmp_path_factory.mktemp("lock") / "copy")


@pytest.mark.parametrize("cut", [*FRACTIONS, *LAST_LINES])
def test_a_lock_cut_anywhere_is_written_again_from_the_cache(quick, folder, cut):
    expected = [contents(quick / name) for name in OUTPUTS]
    text = (quick / "dvc.lock").read_text()
    lines = text.splitlines(keepends=True)
    left = "".join(lines[:-cut]) if cut in LAST_LINES else text[: int(cut * len(text))]
    (folder / "dvc.lock").write_text(left)
    for arguments in (["python", ".ci/lock.py"], ["dvc", "repro"]):
        result = command(folder, *arguments)
        assert result.returncode == 0, result.stderr
    assert "Running" not in result.stdout
    assert [contents(folder / name) for name in OUTPUTS] == expected


def test_a_lock_cut_inside_a_letter_is_set_aside(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    (folder / "dvc.lock").write_bytes("stages:\n  prepare:\n    cmd: größe".encode()[:-3])
    result = command(folder, "python", ".ci/lock.py")
    assert result.returncode == 0
    assert "is now .dvc.lock.old" in result.stderr


def test_a_complete_lock_is_left_alone(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    result = command(folder, "python", ".ci/lock.py")
    assert (result.returncode, result.stderr) == (0, "")
    assert (folder / "dvc.lock").read_bytes() == (quick / "dvc.lock").read_bytes()
    assert not (folder / ".dvc.lock.old").exists()


@pytest.mark.parametrize("content", ["", '{"write": {'])
def test_an_incomplete_rwlock_is_deleted(quick, tmp_path, content):
    folder = shutil.copytree(quick, tmp_path / "copy")
    (folder / ".dvc/tmp/rwlock").write_text(content)
    assert command(folder, "dvc", "repro").returncode != 0
    for arguments in (["python", ".ci/lock.py"], ["dvc", "repro"]):
        result = command(folder, *arguments)
        assert result.returncode == 0, result.stderr
    assert "Running" not in result.stdout

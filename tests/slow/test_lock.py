"""`make run` after DVC was killed while it wrote dvc.lock."""

import shutil

import pytest

from tests.conftest import command, contents

OUTPUTS = ("dvc.lock", "data/prepared", "models", "metrics")
PARTS = [0.0, 0.02, 0.3, 0.6, 0.999]
LAST_LINES = range(1, 7)


@pytest.fixture(scope="module")
def folder(quick, tmp_path_factory):
    return shutil.copytree(quick, tmp_path_factory.mktemp("lock") / "copy")


@pytest.mark.parametrize("part", [*PARTS, *LAST_LINES])
def test_a_lock_cut_anywhere_is_made_anew_from_the_cache(quick, folder, part):
    expected = [contents(quick / name) for name in OUTPUTS]
    text = (quick / "dvc.lock").read_text()
    lines = text.splitlines(keepends=True)
    cut = "".join(lines[:-part]) if part in LAST_LINES else text[: int(part * len(text))]
    (folder / "dvc.lock").write_text(cut)
    for words in (["python", ".ci/lock.py"], ["dvc", "repro"]):
        end = command(folder, *words)
        assert end.returncode == 0, end.stderr
    assert "Running" not in end.stdout
    assert [contents(folder / name) for name in OUTPUTS] == expected


def test_a_lock_cut_inside_a_letter_is_set_aside(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    (folder / "dvc.lock").write_bytes("stages:\n  prepare:\n    cmd: größe".encode()[:-3])
    end = command(folder, "python", ".ci/lock.py")
    assert end.returncode == 0
    assert "is now .dvc.lock.old" in end.stderr


def test_a_lock_that_is_whole_is_left_alone(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    end = command(folder, "python", ".ci/lock.py")
    assert (end.returncode, end.stderr) == (0, "")
    assert (folder / "dvc.lock").read_bytes() == (quick / "dvc.lock").read_bytes()
    assert not (folder / ".dvc.lock.old").exists()


@pytest.mark.parametrize("content", ["", '{"write": {'])
def test_what_processes_use_is_forgotten_where_it_is_not_whole(quick, tmp_path, content):
    folder = shutil.copytree(quick, tmp_path / "copy")
    (folder / ".dvc/tmp/rwlock").write_text(content)
    assert command(folder, "dvc", "repro").returncode != 0
    for words in (["python", ".ci/lock.py"], ["dvc", "repro"]):
        end = command(folder, *words)
        assert end.returncode == 0, end.stderr
    assert "Running" not in end.stdout

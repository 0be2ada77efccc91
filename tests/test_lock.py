"""`make run` after DVC was killed while it wrote dvc.lock."""

import shutil

import pytest

from tests.conftest import command, contents

OUTPUTS = ("dvc.lock", "data/prepared", "models", "metrics")
PARTS = [0.0, 0.02, *(part / 8 for part in range(1, 8)), 0.999]
LAST_LINES = range(1, 7)


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    return shutil.copytree(finished, tmp_path_factory.mktemp("lock") / "copy")


@pytest.mark.parametrize("part", [*PARTS, *LAST_LINES])
def test_a_lock_cut_anywhere_is_made_anew_from_the_cache(finished, folder, part):
    expected = [contents(finished / name) for name in OUTPUTS]
    text = (finished / "dvc.lock").read_text()
    lines = text.splitlines(keepends=True)
    cut = "".join(lines[:-part]) if part in LAST_LINES else text[: int(part * len(text))]
    (folder / "dvc.lock").write_text(cut)
    for words in (["python", ".ci/lock.py"], ["dvc", "repro"]):
        end = command(folder, *words)
        assert end.returncode == 0, end.stderr
    assert "Running" not in end.stdout
    assert [contents(folder / name) for name in OUTPUTS] == expected


def test_a_lock_cut_inside_a_letter_is_set_aside(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    (folder / "dvc.lock").write_bytes("stages:\n  prepare:\n    cmd: größe".encode()[:-3])
    end = command(folder, "python", ".ci/lock.py")
    assert end.returncode == 0
    assert "is now .dvc.lock.old" in end.stderr


def test_a_lock_that_is_whole_is_left_alone(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    end = command(folder, "python", ".ci/lock.py")
    assert (end.returncode, end.stderr) == (0, "")
    assert (folder / "dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()
    assert not (folder / ".dvc.lock.old").exists()


@pytest.mark.parametrize("content", ["", '{"write": {'])
def test_what_processes_use_is_forgotten_where_it_is_not_whole(finished, tmp_path, content):
    folder = shutil.copytree(finished, tmp_path / "copy")
    (folder / ".dvc/tmp/rwlock").write_text(content)
    assert command(folder, "dvc", "repro").returncode != 0
    for words in (["python", ".ci/lock.py"], ["dvc", "repro"]):
        end = command(folder, *words)
        assert end.returncode == 0, end.stderr
    assert "Running" not in end.stdout

"""No room at any write: the outputs are whole or not there, and a later run is as ever."""

import resource
import shutil
import sys

import pytest

from tests.conftest import command, contents

WRITTEN = {
    "prepare": ["data/prepared"],
    "train": ["models/trained"],
    "evaluate": ["metrics/plots", "metrics/evaluation.json"],
    "save": ["models/release"],
}


@pytest.mark.parametrize("stage", WRITTEN)
def test_where_no_file_may_be_as_large_as_it_must_nothing_appears(finished, tmp_path, stage):
    folder = shutil.copytree(finished, tmp_path / "project")
    outputs = [folder / name for name in WRITTEN[stage]]
    expected = [contents(path) for path in outputs]
    sizes = {len(content) for files in expected for content in files.values()}
    for size in sorted({0, *(size - 1 for size in sizes)}):
        for path in outputs:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

        def limit(size=size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        words = [sys.executable, "-m", f"stages.{stage}"]
        end = command(folder, *words, preexec_fn=limit)
        assert end.returncode == 1, size
        assert "Traceback" not in end.stderr, size
        assert "Check the permissions and the free space." in end.stderr, size
        assert not any(path.exists() for path in outputs), size
    end = command(folder, *words)
    assert end.returncode == 0, end.stderr
    assert [contents(path) for path in outputs] == expected
    litter = [path for name in ("data", "models", "metrics") for path in folder.glob(f"{name}/.*")]
    assert litter == []

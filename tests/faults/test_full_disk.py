"""A full disk at any write: outputs are whole or missing, and a later run writes them."""

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
def test_a_stage_that_may_not_write_its_largest_file_writes_nothing(finished, tmp_path, stage):
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

        arguments = [sys.executable, "-m", f"stages.{stage}"]
        result = command(folder, *arguments, preexec_fn=limit)
        assert result.returncode == 1, size
        assert "Traceback" not in result.stderr, size
        assert "Check the permissions and the free space." in result.stderr, size
        written = [contents(path) for path in outputs if path.exists()]
        if stage == "evaluate":  # file by file: each is whole or missing
            assert all(any(new.items() <= old.items() for old in expected) for new in written), size
        else:
            assert not written, size
    result = command(folder, *arguments)
    assert result.returncode == 0, result.stderr
    assert [contents(path) for path in outputs] == expected
    litter = [path for name in ("data", "models", "metrics") for path in folder.glob(f"{name}/.*")]
    assert litter == []

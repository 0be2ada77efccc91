"""The state of a training that has ended, kept until DVC has recorded the outputs in dvc.lock."""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from stages.base.files import alone_in, file_hash, write_aside
from stages.base.inputs import files_in, listed_code

LOCK = Path("dvc.lock")
ENDED = "ended"


def resume_folder() -> Path:
    """Where states are saved; for an experiment in a copy, in the project that it was copied of."""
    return Path(os.environ.get("DVC_ROOT", "."), ".resume")


def note_end(state: Path, outputs: Path) -> None:
    """Note to which outputs a state has led, if possible: else it is deleted when it is old.

    And by which code: another's outputs, which dvc.lock may name, can be the same.
    """
    with suppress(OSError):
        hashes = map(_dvc_hash, [outputs, *listed_code()])
        write_aside(state / ENDED, "".join(f"md5: {each}\n" for each in hashes).encode())


def forget_recorded() -> None:
    """Delete the states of trainings whose outputs dvc.lock names; not those in use."""
    recorded = LOCK.read_bytes() if LOCK.is_file() else b""
    for ended in resume_folder().glob(f"*/{ENDED}"):
        # Another process may do the same.
        with suppress(OSError), alone_in(ended.parent, waits=False) as is_alone:
            lines = ended.read_bytes().splitlines(keepends=True) if ended.is_file() else []
            if is_alone and lines and all(line in recorded for line in lines):
                shutil.rmtree(ended.parent)


def _dvc_hash(path: Path) -> str:
    """The name by which dvc.lock knows a file or a folder: MD5, of a list of MD5s for a folder."""
    if path.is_file():
        return file_hash(path, "md5")
    files = [
        {"md5": file_hash(file, "md5"), "relpath": file.relative_to(path).as_posix()}
        for file in files_in(path)
    ]
    text = json.dumps(files, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"

"""The state of a training that has ended, kept until DVC has recorded the outputs in dvc.lock."""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from stages.parts.files import file_hash, lock_folder, write_aside

LOCK = Path("dvc.lock")
ENDED = "ended"


def resume_folder() -> Path:
    """Where states are saved; for an experiment in a copy, in the project that it was copied of."""
    return Path(os.environ.get("DVC_ROOT", "."), ".resume")


def note_end(state: Path, outputs: Path) -> None:
    """Note to which outputs a state has led, if possible: else it is deleted when it is old."""
    with suppress(OSError):
        write_aside(state / ENDED, _dvc_hash(outputs).encode())


def forget_recorded() -> None:
    """Delete the states of trainings whose outputs dvc.lock names; not those in use."""
    recorded = LOCK.read_bytes() if LOCK.is_file() else b""
    for ended in resume_folder().glob(f"*/{ENDED}"):
        with suppress(OSError):  # another process may do the same
            lock = lock_folder(ended.parent)
            if lock is not None:
                if ended.is_file() and b"md5: %s\n" % ended.read_bytes() in recorded:
                    shutil.rmtree(ended.parent)
                os.close(lock)


def _dvc_hash(folder: Path) -> str:
    """By which dvc.lock names a folder: the MD5 of a list of its files' MD5s."""
    files = [
        {"md5": file_hash(path, "md5"), "relpath": path.relative_to(folder).as_posix()}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    text = json.dumps(files, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"

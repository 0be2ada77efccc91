"""Keep the checkpoint of a finished training until dvc.lock records the outputs."""

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
    """The folder of all checkpoints. An experiment in a copy uses that of the original project."""
    return Path(os.environ.get("DVC_ROOT", "."), ".resume")


def note_end(checkpoint_folder: Path, outputs: Path) -> None:
    """Note beside a checkpoint which outputs the training wrote, and with which code.

    The code is noted because other code can write the same outputs. If the note cannot be written,
    the checkpoint is deleted later, when it is old.
    """
    with suppress(OSError):
        hashes = map(_dvc_hash, [outputs, *listed_code()])
        write_aside(checkpoint_folder / ENDED, "".join(f"md5: {md5}\n" for md5 in hashes).encode())


def forget_recorded() -> None:
    """Delete the checkpoints whose outputs dvc.lock records, if no process uses them."""
    recorded = LOCK.read_bytes() if LOCK.is_file() else b""
    for ended in resume_folder().glob(f"*/{ENDED}"):
        # Another process may delete the same folder.
        with suppress(OSError), alone_in(ended.parent, waits=False) as is_alone:
            lines = ended.read_bytes().splitlines(keepends=True) if ended.is_file() else []
            if is_alone and lines and all(line in recorded for line in lines):
                shutil.rmtree(ended.parent)


def _dvc_hash(path: Path) -> str:
    """The hash in dvc.lock: the MD5 of a file; for a folder, the MD5 of the list of its MD5s."""
    if path.is_file():
        return file_hash(path, "md5")
    files = [
        {"md5": file_hash(file, "md5"), "relpath": file.relative_to(path).as_posix()}
        for file in files_in(path)
    ]
    text = json.dumps(files, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"

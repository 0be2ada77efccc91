"""The project's folders, locks, and files that are written completely or not at all."""

import csv
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.base.errors import UserError

RAW = Path("data/raw")
PREPARED = Path("data/prepared")
STATISTICS = PREPARED / "statistics.json"
TRAINED = Path("models/trained")
WEIGHTS = TRAINED / "weights.safetensors"
HISTORY = TRAINED / "history.csv"
RELEASE = Path("models/release")
EVALUATION = Path("metrics/evaluation.json")
PREDICTIONS = Path("metrics/predictions.parquet")
PLOTS = Path("metrics/plots")
FIGURE = PLOTS / "figure.svg"


@contextmanager
def alone_in(folder: Path, *, waits: bool = True) -> Iterator[bool]:
    """Lock a folder inside the ``with`` block.

    Args:
        folder: The folder.
        waits: Whether to wait until no other process holds the lock.

    Yields:
        Whether this process holds the lock.
    """
    lock = lock_folder(folder, waits=waits)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def lock_folder(folder: Path, *, waits: bool = False) -> int | None:
    """Lock a folder until the descriptor is closed or this process ends.

    Returns:
        An open descriptor; None if another process holds the lock and ``waits`` is false.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def remove(path: Path) -> None:
    """Delete a folder, a file or a link, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(folder: Path) -> None:
    """Wait until a folder and its files are on the disk, where a loss of power cannot undo them."""
    for path in (*folder.iterdir(), folder, folder.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some file systems cannot flush folders
                raise
        finally:
            os.close(descriptor)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write sorted, indented JSON, completely or not at all; refuse NaN and infinity."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, to_json(content))


def to_json(content: dict[str, Any]) -> bytes:
    """Return sorted, indented JSON; NaN and infinity raise ValueError."""
    text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def write_aside(path: Path, content: bytes, *, is_flushed: bool = False) -> None:
    """Write a draft beside ``path`` and rename it to ``path``; replace a link, do not follow it.

    Args:
        path: The file to write.
        content: Its bytes.
        is_flushed: Whether to wait, before the rename, until the bytes are on the disk.
    """
    draft = path.with_name(f".{path.name}.draft")
    remove(draft)
    try:
        with draft.open("wb") as file:
            file.write(content)
            if is_flushed:
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        remove(draft)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that a stage has written.

    Raises:
        UserError: If the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run `dvc repro`.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}. Delete it, then run `dvc repro`.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: not a JSON object. Delete it, then run `dvc repro`.")
    return content


def digest(paths: Iterable[Path]) -> bytes:
    """One SHA-256 of all files' contents, in the sorted order of their paths."""
    digests = b""
    for path in sorted(paths):
        digests += bytes.fromhex(sha256(path))
    return hashlib.sha256(digests).digest()


def sha256(path: Path) -> str:
    """A file's SHA-256, as `sha256sum` prints it."""
    return file_hash(path, "sha256")


def file_hash(path: Path, algorithm: str) -> str:
    """A file's hash in hexadecimal digits, by an algorithm such as ``md5`` or ``sha256``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_csv(path: Path, header: list[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table; a float becomes the shortest text that reads back as the same number."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

"""A stage's output folder. It appears complete or not at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.base.files import remove
from stages.base.process import require_same_inputs


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Yield a draft folder, which replaces ``folder`` when the ``with`` block ends.

    After an error, or if an input has changed, the draft is deleted and ``folder`` stays as it was.
    Drafts of killed processes are deleted; a running process locks its own.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        old.rename(folder)  # a kill came between the two renames below
    for leftover in sorted(folder.parent.glob(f".{folder.name}.*.draft")):
        with _locked(leftover) as is_mine:
            if is_mine:
                remove(leftover)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    draft.mkdir()
    try:
        with _locked(draft):
            yield draft
            require_same_inputs()
            remove(old)
            if os.path.lexists(folder):
                folder.rename(old)
            draft.rename(folder)
            remove(old)
    finally:
        if draft.exists():
            remove(draft)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder inside the ``with`` block; yield whether no other process had locked it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_mine = True
    except BlockingIOError:
        is_mine = False
    try:
        yield is_mine
    finally:
        os.close(descriptor)

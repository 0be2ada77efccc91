"""A stage's output folder. It appears complete or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.base.errors import UserError
from stages.base.files import alone_in, lock_folder, remove
from stages.base.process import require_recordable


@contextmanager
def output_folder(folder: Path, *, keeps_others: bool = False) -> Iterator[Path]:
    """Yield a draft folder, which replaces ``folder`` when the ``with`` block ends.

    After an error, or if an input has changed, the draft is deleted and ``folder`` stays as it was.
    Drafts of killed processes are deleted. A running process locks its draft, which stays.

    Args:
        folder: The output folder.
        keeps_others: Whether to keep the files of ``folder`` that the draft does not have.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    old = folder.with_name(f".{folder.name}.old")
    with alone_in(folder.parent):
        if os.path.lexists(old) and not os.path.lexists(folder):
            old.rename(folder)  # a kill came between the two renames below
        for leftover in sorted(folder.parent.glob(f".{folder.name}.*.draft")):
            if leftover.is_symlink() or not leftover.is_dir():
                leftover.unlink()  # a stage's draft is a folder
                continue
            with alone_in(leftover, waits=False) as is_alone:
                if is_alone:
                    remove(leftover)
        draft.mkdir()
        lock = lock_folder(draft)
    try:
        yield draft
        with alone_in(folder.parent):
            require_recordable()
            for earlier in (folder, old):  # `old` exists after a kill before the last line
                if keeps_others and earlier.is_dir():
                    _copy_others(earlier, draft)
            remove(old)
            if os.path.lexists(folder):
                folder.rename(old)
            draft.rename(folder)
            remove(old)
    except BaseException:
        remove(draft)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _copy_others(folder: Path, draft: Path) -> None:
    written = {path.name for path in draft.iterdir()}

    def ignored(source: str, _names: list[str]) -> set[str]:
        return written if source == str(folder) else set()

    try:
        shutil.copytree(folder, draft, symlinks=True, ignore=ignored, dirs_exist_ok=True)
    except shutil.Error as error:
        raise UserError(
            f"{error.args[0][0][0]} cannot be copied. Move it to another folder."
        ) from None

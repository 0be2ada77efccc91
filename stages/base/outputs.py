"""A stage's output folder: it appears whole or not at all."""

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
    """Yield a draft folder that takes the place of ``folder`` once everything in it is written.

    On an error, or if an input has changed, the draft is deleted and ``folder`` is left as it was.
    Drafts that killed processes have left are deleted; another process's, which it has locked, is
    not touched. With ``keeps_others``, files in it that the draft lacks stay there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    old = folder.with_name(f".{folder.name}.old")
    with alone_in(folder.parent):
        if os.path.lexists(old) and not os.path.lexists(folder):
            old.rename(folder)  # a kill came between the two renames below
        for left in sorted(folder.parent.glob(f".{folder.name}.*.draft")):
            if left.is_symlink() or not left.is_dir():
                left.unlink()  # none of a stage's
                continue
            with alone_in(left, waits=False) as is_alone:
                if is_alone:
                    remove(left)
        draft.mkdir()
        lock = lock_folder(draft)
    try:
        yield draft
        with alone_in(folder.parent):
            require_recordable()
            for there in (folder, old):  # a kill may have come before the last line
                if keeps_others and there.is_dir():
                    _copy_others(there, draft)
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

    def known(source: str, _names: list[str]) -> set[str]:
        return written if source == str(folder) else set()

    try:
        shutil.copytree(folder, draft, symlinks=True, ignore=known, dirs_exist_ok=True)
    except shutil.Error as error:
        raise UserError(f"{error.args[0][0][0]} cannot be kept. Put it elsewhere.") from None

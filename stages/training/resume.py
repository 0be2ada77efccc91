"""Where a training that was stopped goes on: its state, outside the outputs, by its fingerprint."""

import ctypes
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from types import FrameType

from stages.base import process
from stages.base.errors import is_out_of_memory
from stages.base.files import PREPARED, alone_in, lock_folder, remove, write_aside
from stages.base.inputs import require_same_inputs
from stages.base.recorded import forget_recorded, note_end, resume_folder
from stages.training.checkpoint import State
from stages.training.ranks import Ranks

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
INTERVAL_SECONDS = 2.0
MAX_SAVING_FRACTION = 0.02  # of the time, at most, for saving
KEPT_SECONDS = 30 * 24 * 3600  # after its last save, a state that nobody has gone on from


class Resume:
    """The saved state of one training; rank 0 keeps it, for all ranks."""

    def __init__(self, folder: Path, digest: bytes, ranks: Ranks, num_epochs: int) -> None:
        self._path, self._digest = folder / "state", digest
        self._ranks = ranks
        self._num_epochs = num_epochs
        self._next_save = time.monotonic() + INTERVAL_SECONDS
        self._is_warned = False
        self._signal = 0
        # Who ignores one, as nohup does, wants it ignored.
        self.signals = [each for each in SIGNALS if signal.getsignal(each) != signal.SIG_IGN]

    def stop(self, signum: int, _frame: FrameType | None) -> None:
        """Handle a signal: end after this step, or at once if it comes again.

        Ranks leave it to rank 0, whose step needs them; torchrun kills those that stay too long.
        """
        self._signal = signum
        process.is_stopping.set()
        if self._ranks.num_ranks == 1:
            for each in self.signals:
                signal.signal(each, signal.SIG_DFL)

    def restore(self, state: State) -> None:
        """Go on where a training of the same fingerprint was stopped, if one was.

        Raises:
            UserError: If the state was forged.
        """
        content = self._ranks.broadcast(self._read())
        if not content:
            return
        try:
            state.restore(content, self._digest)
        except ValueError:
            if self._ranks.rank == 0:
                self._set_aside()
            return
        if self._ranks.rank == 0:
            print(f"train: resumed at {self._where(state)}", flush=True)

    def _read(self) -> bytes:
        """The saved state; nothing if there is none."""
        if self._ranks.rank > 0 or not os.path.lexists(self._path):
            return b""
        try:
            return (self._path.is_file() and self._path.read_bytes()) or b"none"
        except (OSError, MemoryError):
            return b"unreadable"

    def _set_aside(self) -> None:
        damaged = self._path.with_name("damaged")
        try:
            remove(damaged)
            self._path.replace(damaged)
            now = f"is now {damaged.name}"
        except OSError as error:
            now = f"stays there: {error.strerror}"
        sys.stderr.write(f"train: {self._path} was damaged, and {now}; training starts anew.\n")

    def save_if_due(self, state: State, *, is_last: bool = False) -> None:
        """Save after a few seconds, and at last; save and end after a signal."""
        start = time.monotonic()
        is_due = is_last or self._signal or start >= self._next_save
        if self._ranks.rank > 0 or not is_due:
            return
        require_same_inputs(str(PREPARED))  # may be read again: no state of other rows is saved
        saved = self._save(state)
        seconds = time.monotonic() - start
        self._next_save = start + max(INTERVAL_SECONDS, seconds / MAX_SAVING_FRACTION)
        self.end_by_signal(
            f"the next run goes on from {self._where(state)}" if saved else "not saved"
        )

    def end_by_signal(self, outcome: str) -> None:
        """Say so, and end this process, if a signal has come."""
        signum, self._signal = self._signal, 0
        if not signum:
            return
        signal.signal(signum, signal.SIG_DFL)
        try:
            below = "\n" * sys.stderr.isatty()  # the bar
            name = signal.Signals(signum).name
            print(f"{below}train: stopped by {name}; {outcome}", flush=True)
        finally:  # also where nobody reads it any more
            os.kill(os.getpid(), signum)

    def _save(self, state: State) -> bool:
        """Write aside, flush and rename; training goes on without, where this is impossible."""
        try:
            write_aside(self._path, state.to_bytes(self._digest), is_flushed=True)
        except (OSError, MemoryError, RuntimeError) as error:
            if not isinstance(error, OSError) and not is_out_of_memory(error):
                raise
            if not self._is_warned:
                reason = error.strerror if isinstance(error, OSError) else "the memory is exhausted"
                sys.stderr.write(
                    f"train: {self._path} cannot be written: {reason}. Training goes on; if it is"
                    " stopped, it starts from what was saved before.\n"
                )
            self._is_warned = True
            return False
        return True

    def _where(self, state: State) -> str:
        step = f", step {state.step}" if state.step else ""
        return f"epoch {state.epoch} of {self._num_epochs}{step}"

    def end(self, outputs: Path) -> None:
        """Forget the state, as far as this is possible: what it led to is on the disk.

        Where DVC has still to record that, and may fail, `forget_recorded` does so later.
        """
        if "DVC_STAGE" in os.environ:
            note_end(self._path.parent, outputs)
        else:
            shutil.rmtree(self._path.parent, ignore_errors=True)


@contextmanager
def resumable(fingerprint: Mapping[str, bytes], ranks: Ranks, num_epochs: int) -> Iterator[Resume]:
    """Keep other trainings of this fingerprint out; let this one save at a signal, then end."""
    digest = sha256(b"".join(value for _, value in sorted(fingerprint.items()))).digest()
    folder = resume_folder() / digest.hex()[:32]
    resume = Resume(folder, digest, ranks, num_epochs)
    lock = None
    if ranks.rank == 0:
        require_same_inputs()  # the fingerprint is theirs, and of what has been read
        forget_recorded()
        lock = _lock(folder)
        _delete_old(folder.parent)
    handlers = {each: signal.signal(each, resume.stop) for each in resume.signals}
    try:
        with _second_signal_at_once(ranks):
            yield resume
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        if lock is not None:
            os.close(lock)
    if ranks.rank == 0:
        resume.end_by_signal("its outputs are written")


@contextmanager
def _second_signal_at_once(ranks: Ranks) -> Iterator[None]:
    """End at a second signal also where the main thread is in a long computation.

    Python runs a handler between that thread's instructions alone, but tells of a signal at once.
    """
    if ranks.num_ranks > 1:
        yield
        return
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)

    def wait() -> None:
        if os.read(told, 1):
            process.is_stopping.set()  # before `stop`, which may be late
        second = os.read(told, 1)  # nothing at the end of the training
        os.close(told)
        if second:
            ctypes.CDLL(None).signal(second[0], 0)  # SIG_DFL; Python's own is the main thread's
            os.kill(os.getpid(), second[0])

    threading.Thread(target=wait, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(tell)


def _lock(folder: Path) -> int:
    """Make the folder and lock it; wait while another training has it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = lock_folder(folder)
            if lock is None:
                print(f"train: {_owner(folder)} trains the same; waiting for its end", flush=True)
                lock = lock_folder(folder, waits=True)
                assert lock is not None
            if os.path.samestat(folder.stat(), os.fstat(lock)):
                with suppress(OSError):  # it only tells others who this is
                    write_aside(folder / "pid", str(os.getpid()).encode())
                return lock
            os.close(lock)
        except FileNotFoundError:  # who had it before has just deleted it
            time.sleep(0.1)


def _owner(folder: Path) -> str:
    path = folder / "pid"
    with suppress(OSError):
        pid = path.read_text(errors="replace") if path.is_file() else ""
        if pid.isdecimal():
            return f"process {pid}"
    return "another process"


def _delete_old(folder: Path) -> None:
    """Delete the states that were last saved long ago."""
    for old in sorted(folder.iterdir()):
        if not re.fullmatch("[0-9a-f]{32}", old.name) or old.is_symlink():
            continue  # not ours
        with suppress(OSError):  # another training has just ended, or it is somebody else's
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                with alone_in(old, waits=False) as is_alone:
                    if is_alone:
                        shutil.rmtree(old)

"""Save a training's state to a checkpoint, and continue from it after a stop.

The checkpoint lies outside the outputs, in a folder named by the training's fingerprint.
"""

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
MAX_SAVING_FRACTION = 0.02  # of the time
KEPT_SECONDS = 30 * 24 * 3600  # after the last save


class Resume:
    """The checkpoint of one training; rank 0 keeps it for all ranks."""

    def __init__(self, folder: Path, digest: bytes, ranks: Ranks, num_epochs: int) -> None:
        self._path, self._digest = folder / "state", digest
        self._ranks = ranks
        self._num_epochs = num_epochs
        self._next_save = time.monotonic() + INTERVAL_SECONDS
        self._is_warned = False
        self._signal = 0
        # Respect signals that the caller ignores (nohup ignores SIGHUP).
        self.signals = [item for item in SIGNALS if signal.getsignal(item) != signal.SIG_IGN]

    def stop(self, signum: int, _frame: FrameType | None) -> None:
        """Handle a signal: end after this step, or at once if a second signal comes.

        With several ranks, only rank 0 acts on the signal: its step needs the other ranks. torchrun
        kills the ranks that take too long.
        """
        self._signal = signum
        process.is_stopping.set()
        if self._ranks.num_ranks == 1:
            for item in self.signals:
                signal.signal(item, signal.SIG_DFL)

    def restore(self, state: State) -> None:
        """Continue from the checkpoint of a training with the same fingerprint, if there is one.

        Raises:
            UserError: If this program did not write the checkpoint.
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
        """Return the content of the checkpoint; nothing if there is none."""
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
            outcome = f"was renamed to `{damaged.name}`"
        except OSError as error:
            outcome = f"cannot be renamed: {error.strerror}"
        sys.stderr.write(
            f"train: the checkpoint {self._path} is damaged and {outcome}. Training starts from the"
            " beginning.\n"
        )

    def save_if_due(self, state: State, *, is_last: bool = False) -> None:
        """Save every few seconds and at the end; after a signal, save and end this process."""
        start = time.monotonic()
        is_due = is_last or self._signal or start >= self._next_save
        if self._ranks.rank > 0 or not is_due:
            return
        require_same_inputs(str(PREPARED))  # else the checkpoint could come from other rows
        saved = self._save(state)
        seconds = time.monotonic() - start
        self._next_save = start + max(INTERVAL_SECONDS, seconds / MAX_SAVING_FRACTION)
        self.end_by_signal(
            f"the next run goes on from {self._where(state)}"
            if saved
            else "the last steps were not saved"
        )

    def end_by_signal(self, outcome: str) -> None:
        """If a signal has come, print the outcome and end this process by that signal."""
        signum, self._signal = self._signal, 0
        if not signum:
            return
        signal.signal(signum, signal.SIG_DFL)
        try:
            below = "\n" * sys.stderr.isatty()  # below the progress bar
            name = signal.Signals(signum).name
            print(f"{below}train: stopped by {name}; {outcome}", flush=True)
        finally:  # even if printing fails because nobody reads the output
            os.kill(os.getpid(), signum)

    def _save(self, state: State) -> bool:
        """Save the checkpoint; if this is impossible, warn once and return False."""
        try:
            write_aside(self._path, state.to_bytes(self._digest), is_flushed=True)
        except (OSError, MemoryError, RuntimeError) as error:
            if not isinstance(error, OSError) and not is_out_of_memory(error):
                raise
            if not self._is_warned:
                reason = error.strerror if isinstance(error, OSError) else "the memory is exhausted"
                sys.stderr.write(
                    f"train: the checkpoint {self._path} cannot be written: {reason}. Training"
                    " goes on. If it is stopped, the next run starts from the last checkpoint that"
                    " was saved.\n"
                )
            self._is_warned = True
            return False
        return True

    def _where(self, state: State) -> str:
        step = f", step {state.step}" if state.step else ""
        return f"epoch {state.epoch} of {self._num_epochs}{step}"

    def end(self, outputs: Path) -> None:
        """Delete the checkpoint if possible: the outputs are on the disk.

        Under DVC, `forget_recorded` deletes it later, when DVC has recorded the outputs.
        """
        if "DVC_STAGE" in os.environ:
            note_end(self._path.parent, outputs)
        else:
            shutil.rmtree(self._path.parent, ignore_errors=True)


@contextmanager
def resumable(fingerprint: Mapping[str, bytes], ranks: Ranks, num_epochs: int) -> Iterator[Resume]:
    """Let only one training of this fingerprint run; at a signal it saves, then ends."""
    digest = sha256(b"".join(value for _, value in sorted(fingerprint.items()))).digest()
    folder = resume_folder() / digest.hex()[:32]
    resume = Resume(folder, digest, ranks, num_epochs)
    lock = None
    if ranks.rank == 0:
        require_same_inputs()  # else the fingerprint would not describe what was read
        forget_recorded()
        lock = _lock(folder)
        _delete_old(folder.parent)
    handlers = {item: signal.signal(item, resume.stop) for item in resume.signals}
    try:
        with _second_signal_at_once(ranks):
            yield resume
    finally:
        for item, handler in handlers.items():
            signal.signal(item, handler)
        if lock is not None:
            os.close(lock)
    if ranks.rank == 0:
        resume.end_by_signal("the outputs are written")


@contextmanager
def _second_signal_at_once(ranks: Ranks) -> Iterator[None]:
    """End at a second signal even if the main thread is in a long computation.

    Python runs a handler only between the main thread's instructions, but it writes to the wakeup
    descriptor at once. A second thread reads that.
    """
    if ranks.num_ranks > 1:
        yield
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def wait() -> None:
        if os.read(read_end, 1):
            process.is_stopping.set()  # `stop` may run much later
        second = os.read(read_end, 1)  # empty at the end of the training
        os.close(read_end)
        if second:
            ctypes.CDLL(None).signal(second[0], 0)  # SIG_DFL; signal.signal needs the main thread
            os.kill(os.getpid(), second[0])

    threading.Thread(target=wait, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.close(write_end)


def _lock(folder: Path) -> int:
    """Make the folder and lock it; wait while another training has locked it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = lock_folder(folder)
            if lock is None:
                print(
                    f"train: waiting for {_owner(folder)}, which runs the same training", flush=True
                )
                lock = lock_folder(folder, waits=True)
                assert lock is not None
            if os.path.samestat(folder.stat(), os.fstat(lock)):
                with suppress(OSError):  # the file only tells others who this is
                    write_aside(folder / "pid", str(os.getpid()).encode())
                return lock
            os.close(lock)
        except FileNotFoundError:  # the previous owner has just deleted it
            time.sleep(0.1)


def _owner(folder: Path) -> str:
    path = folder / "pid"
    with suppress(OSError):
        pid = path.read_text(errors="replace") if path.is_file() else ""
        if pid.isdecimal():
            return f"process {pid}"
    return "another process"


def _delete_old(folder: Path) -> None:
    """Delete the checkpoints that were last saved long ago."""
    for old in sorted(folder.iterdir()):
        if not re.fullmatch("[0-9a-f]{32}", old.name) or old.is_symlink():
            continue  # not ours
        with suppress(OSError):  # another training has just ended, or another user owns it
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                with alone_in(old, waits=False) as is_alone:
                    if is_alone:
                        shutil.rmtree(old)

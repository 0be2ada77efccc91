"""Run a stage: its errors are one sentence, and it stops when its parent process has exited."""

import gc
import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from stages.base.errors import UserError, is_out_of_memory
from stages.base.inputs import note_inputs, require_same_inputs

POLL_SECONDS = 1.0
LAST_STEP_SECONDS = 60.0  # an orphan may use them to save its work
CLOCK_SECONDS = 0.02  # Linux gives the start of a process to 0.01 s
PROC = Path("/proc")
DVC = rb"(^|\0|/)dvc(\0|$)"  # as one argument of a command line

is_stopping = threading.Event()  # set by a signal handler that lets the step end first


def run(main: Callable[[], None]) -> None:
    """Run a stage; an error that a user can correct prints one sentence and gives exit status 1.

    If the parent process exits, the stage gets SIGTERM within seconds and SIGKILL after a minute.
    """
    for name in ("stdout", "stderr"):
        if not getattr(sys, name):  # the caller has closed it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show ·
    gc.freeze()  # what is imported stays; the collector need not look at it again
    gc.enable()
    try:
        threading.Thread(target=_end_as_orphan, daemon=True).start()
        note_inputs(_start_seconds())
        main()
        require_same_inputs()
    except UserError as error:
        sys.exit(str(error))
    except (MemoryError, RuntimeError, SystemError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit("Out of memory. Free some memory, or raise the memory limit of this process.")
    except OSError as error:
        name = error.filename2 or error.filename
        where = f"{name}: " if name else ""
        sys.exit(f"{where}{error.strerror or error}. Check the permissions and the free space.")


def require_recordable() -> None:
    """Check that this stage may still write its outputs.

    Raises:
        UserError: If an input has changed, or the parent process has exited.
    """
    require_same_inputs()
    if is_orphan():  # a later run may be writing the same outputs
        raise UserError(
            "The outputs are not written, because DVC has been killed. Run the stage again."
        )


def is_orphan() -> bool:
    """Whether the parent of this process (DVC, torchrun or another stage) has exited."""
    return any(_stat(pid)[0] != start for pid, start in _starters())


def _end_as_orphan() -> None:
    while not is_orphan():
        time.sleep(POLL_SECONDS)
    with suppress(OSError):  # the terminal may be gone, too
        sys.stderr.write(
            "The parent process (DVC or the terminal) has exited, so this stage stops too.\n"
        )
    if not is_stopping.is_set():  # a second signal would prevent the save
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_STEP_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


@cache
def _starters() -> list[tuple[int, str]]:
    """The process ID and start of every stage above this process, and of DVC above them."""
    starters: list[tuple[int, str]] = []
    # DVC may run the stage in a shell; the shell's command line then holds ours as one argument.
    mark = rb"-m[\0 ]stages\." if "DVC_STAGE" in os.environ else rb"\0-m\0stages\."
    _, pid, child_session = _stat(os.getpid())  # no parent where there is no /proc
    while pid:
        start, parent, session = _stat(pid)
        command_line = _command_line(pid)
        is_dvc = re.search(DVC, command_line) is not None
        if is_dvc or not re.search(mark, command_line):  # the -m of DVC can be a message
            if "DVC_STAGE" in os.environ:
                # DVC's children are in its session. A parent in another session has adopted an
                # orphan, and so has process 1, unless it is DVC.
                is_starter = session == child_session and (pid > 1 or is_dvc)
                starters.append((pid, start if is_starter else "died before"))
            break
        starters.append((pid, start))
        pid, child_session = parent, session
    return starters


def _start_seconds() -> float:
    """The latest possible start of this process, in seconds since 1970; without /proc, now."""
    ticks = _stat(os.getpid())[0]
    if not ticks:
        return time.time()
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    age_seconds = since_boot - int(ticks) / os.sysconf("SC_CLK_TCK")
    return time.time() - age_seconds + CLOCK_SECONDS


def _stat(pid: int) -> tuple[str, int, int]:
    """The start, the parent and the session of a process; empty if it has exited."""
    try:
        fields = (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0, 0
    return ("", 0, 0) if fields[0] in "ZX" else (fields[19], int(fields[1]), int(fields[3]))


def _command_line(pid: int) -> bytes:
    try:
        return (PROC / f"{pid}/cmdline").read_bytes()
    except OSError:
        return b""

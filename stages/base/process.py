"""A stage as a process: it ends with one sentence, or with the processes that wait for it."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from stages.base.errors import UserError, is_out_of_memory
from stages.base.inputs import note_inputs, require_same_inputs

POLL_SECONDS = 1.0
LAST_STEP_SECONDS = 60.0  # for an orphan
CLOCK_SECONDS = 0.02  # the start of a process is known to 0.01
PROC = Path("/proc")
DVC = rb"(^|\0|/)dvc(\0|$)"  # as a word of a command line

is_stopping = threading.Event()  # set by who handles a signal by ending later


def run(main: Callable[[], None]) -> None:
    """Run a stage; what a user can cause ends it with its sentence and exit status 1.

    When the process is an orphan it gets a SIGTERM within seconds, and after a minute a SIGKILL.
    """
    for name in ("stdout", "stderr"):
        if not getattr(sys, name):  # closed by who started this
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack the sign ·
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
        sys.exit("The memory is exhausted. Free some, or raise the limit of this process.")
    except OSError as error:
        name = error.filename2 or error.filename
        where = f"{name}: " if name else ""
        sys.exit(f"{where}{error.strerror or error}. Check the permissions and the free space.")


def run_module(name: str, folder: Path, environment: Mapping[str, str] = {}) -> bool:
    """Run a module on a folder in a process of its own; tell whether it succeeded.

    In UTF-8, whatever the locale: PyTorch's exporter reads our source.
    """
    words = [sys.executable, "-X", "utf8", "-m", name, str(folder)]
    end = subprocess.run(words, env=os.environ | environment, check=False)  # noqa: S603 (our own)
    return not end.returncode


def require_recordable() -> None:
    """Raise UserError if an input has changed, or if nobody waits for this process's outputs."""
    require_same_inputs()
    if is_orphan():  # who comes next writes its own
        raise UserError("Nothing is written: DVC, which waited for it, has been killed.")


def is_orphan() -> bool:
    """Whether DVC, torchrun or another stage started this process, and has died since."""
    return any(_stat(pid)[0] != start for pid, start in _starters())


def _end_as_orphan() -> None:
    while not is_orphan():
        time.sleep(POLL_SECONDS)
    with suppress(OSError):  # the terminal may be gone, too
        sys.stderr.write("What started this process has ended, and so does it.\n")
    if not is_stopping.is_set():  # a second signal would end it without saving
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_STEP_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


@cache
def _starters() -> list[tuple[int, str]]:
    """The processes above this one that run our stages, and DVC above them: number and start."""
    starters: list[tuple[int, str]] = []
    # DVC may start a shell with our command in its own, and that shell the stage.
    mark = rb"-m[\0 ]stages\." if "DVC_STAGE" in os.environ else rb"\0-m\0stages\."
    _, pid, child_session = _stat(os.getpid())  # no parent where there is no /proc
    while pid:
        start, parent, session = _stat(pid)
        words = _command(pid)
        if not re.search(mark, words) or re.search(DVC, words):  # its -m may be a message
            if "DVC_STAGE" in os.environ:
                # What DVC starts is in its session. Process 1, and another session's, take in
                # orphans; DVC may be process 1.
                is_dvc = session == child_session and (pid > 1 or re.search(DVC, words))
                starters.append((pid, start if is_dvc else "died before"))
            break
        starters.append((pid, start))
        pid, child_session = parent, session
    return starters


def _start_seconds() -> float:
    """When this process started, in seconds since 1970, at the latest; now, without /proc."""
    ticks = _stat(os.getpid())[0]
    if not ticks:
        return time.time()
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    age_seconds = since_boot - int(ticks) / os.sysconf("SC_CLK_TCK")
    return time.time() - age_seconds + CLOCK_SECONDS


def _stat(pid: int) -> tuple[str, int, int]:
    """When a process started, its parent and its session; nothing of one that has died."""
    try:
        fields = (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0, 0
    return ("", 0, 0) if fields[0] in "ZX" else (fields[19], int(fields[1]), int(fields[3]))


def _command(pid: int) -> bytes:
    try:
        return (PROC / f"{pid}/cmdline").read_bytes()
    except OSError:
        return b""

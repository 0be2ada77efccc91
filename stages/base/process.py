"""How a stage starts and ends: errors are one sentence, and inputs must not change meanwhile."""

import gc
import io
import os
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import stages
from stages.base.errors import UserError, is_out_of_memory
from stages.base.files import CODE, PARAMS, PIPELINE, files_in, sha256
from stages.base.yaml12 import read_yaml

MAX_HASHED_BYTES = 2**20

_noted: dict[str, object] = {}


def run(main: Callable[[], None]) -> None:
    """Run a stage; an error that a user can correct prints one sentence and gives exit status 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show ·
    gc.freeze()  # what is imported stays; the collector need not look at it again
    gc.enable()
    try:
        for path in files_in(CODE):  # perhaps old code was imported; a later time is a wrong one
            if stages.START_SECONDS < path.stat().st_ctime <= time.time():
                sys.exit(f"{path} changed while the stage started. Run the stage again.")
        _noted.update(_inputs())
        main()
        sys.stdout.flush()
    except UserError as error:
        sys.exit(str(error))
    except (MemoryError, RuntimeError, SystemError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit("Out of memory. Free some memory, or raise the memory limit of this process.")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"{where}{error.strerror or error}. Check the permissions and the free space.")
    os._exit(0)  # at once: Python would free the objects of PyTorch one by one, for 0.2 s


def require_same_inputs() -> None:
    """Raise UserError if an input has changed since the stage started; call before outputs appear.

    DVC records the inputs as they are when the stage ends. The stage must have read the same ones.
    """
    now = _inputs() if _noted else {}
    changed = sorted(name for name in _noted | now if _noted.get(name) != now.get(name))
    if changed:
        raise UserError(
            f"{_stage()}: {' and '.join(changed[:3])} changed while the stage ran, so its outputs"
            " are not recorded. Run the stage again; if you undo the change first, a training"
            " continues where it was."
        )


def _inputs() -> dict[str, object]:
    """What dvc.yaml lists for this stage: the content of files, and the values of parameters."""
    pipeline = read_yaml(PIPELINE) if PIPELINE.exists() else {}
    listed = pipeline.get("stages", {}).get(_stage(), {})
    inputs: dict[str, object] = {}
    for file in chain.from_iterable(files_in(Path(path)) for path in listed.get("deps", [])):
        status = file.stat()
        inputs[str(file)] = status.st_size, status.st_mtime_ns
        if status.st_size <= MAX_HASHED_BYTES:  # Git writes it again, with another time
            inputs[str(file)] = sha256(file)
    params = read_yaml(PARAMS) if listed else {}
    for key in listed.get("params", []):
        value = params
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        inputs[f"`{key}` in {PARAMS}"] = value
    return inputs


def _stage() -> str:
    return str(getattr(sys.modules["__main__"].__spec__, "name", "")).removeprefix("stages.")

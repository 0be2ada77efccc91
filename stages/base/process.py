"""How a stage starts and ends: errors are one sentence, and inputs must not change meanwhile."""

import gc
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import stages
from stages.base.errors import UserError, is_out_of_memory
from stages.base.files import CODE, PARAMS, files_in, sha256
from stages.base.yaml12 import read_yaml

PIPELINE = Path("dvc.yaml")
MAX_HASHED_BYTES = 2**20

_noted: dict[str, object] = {}


def run(main: Callable[[], None]) -> None:
    """Run a stage; an error that a user can correct prints one sentence and gives exit status 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show ·
    gc.freeze()  # what is imported stays; the collector need not look at it again
    gc.enable()
    try:
        _note_inputs()
        main()
    except UserError as error:
        sys.exit(str(error))
    except (MemoryError, RuntimeError, SystemError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit("Out of memory. Free some memory, or raise the memory limit of this process.")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"{where}{error.strerror or error}. Check the permissions and the free space.")


def require_same_inputs() -> None:
    """Check, before outputs appear, that no input has changed since the stage started.

    DVC records the inputs as they are when the stage ends. The stage must have read the same ones.

    Raises:
        UserError: Naming the first three inputs that have changed.
    """
    now = _inputs() if _noted else {}
    changed = sorted(name for name in _noted | now if _noted.get(name) != now.get(name))
    if changed:
        raise UserError(
            f"{_stage()}: {' and '.join(changed[:3])} changed while the stage ran, so its outputs"
            " are not recorded. Run the stage again; if you undo the change first, a training"
            " continues where it was."
        )


def _note_inputs() -> None:
    now = time.time()  # a file with a later time is older than a clock that was set back
    for path in files_in(CODE):
        if stages.START_SECONDS < path.stat().st_ctime <= now:  # perhaps the old code was imported
            raise UserError(f"{path} changed while the stage started. Run the stage again.")
    _noted.update(_inputs())


def _inputs() -> dict[str, object]:
    """What dvc.yaml lists for this stage: the content of files, and the values of parameters."""
    pipeline = read_yaml(PIPELINE) if PIPELINE.exists() else {}
    listed = pipeline.get("stages", {}).get(_stage(), {})
    files = [file for path in listed.get("deps", []) for file in files_in(Path(path))]
    inputs = {str(file): _content(file) for file in files}
    params = read_yaml(PARAMS) if listed else {}
    for key in listed.get("params", []):
        value: Any = params
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        inputs[f"`{key}` in {PARAMS}"] = value
    return inputs


def _content(file: Path) -> object:
    """A small file's hash, because Git rewrites files for a moment; else its size and time."""
    status = file.stat()
    is_small = status.st_size <= MAX_HASHED_BYTES
    return sha256(file) if is_small else (status.st_size, status.st_mtime_ns)


def _stage() -> str:
    return str(getattr(sys.modules["__main__"].__spec__, "name", "")).removeprefix("stages.")

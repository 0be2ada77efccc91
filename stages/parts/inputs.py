"""DVC records the inputs that lie there when a stage ends: they must be those that it has read."""

import os
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from stages.parts.errors import UserError
from stages.parts.yaml12 import read_yaml

PIPELINE, PARAMS = Path("dvc.yaml"), Path("params.yaml")
MAX_READ_BYTES = 2**20  # of a larger file the size and the time tell

_noted: dict[str, object] = {}


def note_inputs() -> None:
    """Remember what dvc.yaml lists for this stage as it is now, where DVC runs the stage."""
    if "DVC_STAGE" in os.environ:
        _noted.update(_inputs())


def require_same_inputs() -> None:
    """Raise UserError if an input has been changed since it was noted."""
    now = _inputs() if _noted else {}
    changed = sorted(
        name for name in _noted.keys() | now.keys() if _noted.get(name) != now.get(name)
    )
    if changed:
        raise UserError(
            f"{_stage()}: {' and '.join(changed[:3])} changed while it ran. Nothing is written,"
            " since DVC would record what was not used. Run it again; `dvc exp run --queue` leaves"
            " a run in peace."
        )


def _inputs() -> dict[str, object]:
    paths, keys = _listed()
    found = {file for path in paths for file in (path, *path.rglob("[!.]*")) if file.is_file()}
    return {str(file): _content(file) for file in found} | _parameters(keys)


def _content(path: Path) -> object:
    found = path.stat()
    if found.st_size > MAX_READ_BYTES:
        return found.st_size, found.st_mtime_ns
    return sha256(path.read_bytes()).digest()


def _parameters(keys: list[str]) -> dict[str, object]:
    try:
        content = read_yaml(PARAMS)
    except UserError:  # somebody is editing it
        return {}
    values: dict[str, Any] = {}
    for key in keys:
        value = content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        values[f"`{key}` in {PARAMS}"] = value
    return values


@cache
def _listed() -> tuple[list[Path], list[str]]:
    """The paths and the parameters that DVC will record."""
    stage = read_yaml(PIPELINE)["stages"].get(_stage(), {})
    return [Path(path) for path in stage.get("deps", [])], stage.get("params", [])


def _stage() -> str:
    return str(getattr(sys.modules["__main__"].__spec__, "name", "")).removeprefix("stages.")

"""DVC records the inputs that lie there when a stage ends: they must be those that it has read."""

import re
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from stages.base.errors import UserError
from stages.base.yaml12 import read_yaml

PIPELINE, PARAMS = Path("dvc.yaml"), Path("params.yaml")
CODE = Path(__file__).parents[1]
# Not inputs, as .dvcignore has it: byte code, and what editors leave beside a file.
IGNORED = re.compile(r"\..*|__pycache__|.*~")
MAX_READ_BYTES = 2**20  # of a larger file the size and the time tell

_noted: dict[str, object] = {}


def code_files() -> list[Path]:
    """All code of the stages, but what an editor may have left beside it."""
    return [path for path in files_in(CODE) if path.suffix == ".py"]


def files_in(path: Path) -> list[Path]:
    """The file ``path`` itself, or the files in the folder ``path``, as DVC hashes them; sorted."""
    return [
        file
        for file in sorted((path, *path.rglob("*")))
        if file.is_file() and not any(map(IGNORED.fullmatch, file.relative_to(path).parts))
    ]


def note_inputs(start_seconds: float) -> None:
    """Remember what dvc.yaml lists for this stage as it is now.

    Args:
        start_seconds: When this process began to import the code, by the clock of files.

    Raises:
        UserError: If code has been changed since.
    """
    late = [path for path in code_files() if path.stat().st_ctime > start_seconds]
    if late:
        raise UserError(f"{_stage()}: {min(late)} changed while it started. Run it again.")
    _noted.update(_inputs())


def require_same_inputs(within: str = "") -> None:
    """Raise UserError if an input whose name begins so has been changed since it was noted."""
    before = {name: was for name, was in _noted.items() if name.startswith(within)}
    now = _inputs(within) if before else {}
    changed = sorted(
        name for name in before.keys() | now.keys() if before.get(name) != now.get(name)
    )
    if changed:
        raise UserError(
            f"{_stage()}: {' and '.join(changed[:3])} changed while it ran, and DVC would take it"
            " for what was used: nothing is recorded. Undo the change and run it again to keep the"
            " work, or run it again as it is now."
        )


def listed_code() -> list[Path]:
    """The files and folders of code that dvc.yaml lists for this stage."""
    return [path for path in _declared()[0] if path.parts[0] == CODE.name and path.exists()]


def _inputs(within: str = "") -> dict[str, object]:
    paths, keys = _declared()
    found = {
        str(file): _content(file)
        for path in paths
        for file in files_in(path)
        if str(file).startswith(within)
    }
    return found | ({} if within else _parameters(keys))


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
def _declared() -> tuple[list[Path], list[str]]:
    """The paths and the parameters that DVC will record, as far as they are named plainly."""
    try:
        stage = read_yaml(PIPELINE)["stages"][_stage()]
        deps, params = stage.get("deps", []), stage.get("params", [])
        paths = [Path(path) for path in deps if isinstance(path, str)]
        return paths, [key for key in params if isinstance(key, str)]
    except (UserError, LookupError, TypeError, AttributeError):  # DVC itself would record nothing
        return [], []


def _stage() -> str:
    return str(getattr(sys.modules["__main__"].__spec__, "name", "")).removeprefix("stages.")

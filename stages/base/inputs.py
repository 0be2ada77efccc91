"""Check that a stage's inputs, which dvc.yaml lists, do not change while the stage runs.

DVC records the inputs as they are when the stage ends. The stage must have read the same ones.
"""

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
# As in .dvcignore: byte code and the files that editors leave are not inputs.
IGNORED = re.compile(r"\..*|__pycache__|.*~")
MAX_READ_BYTES = 2**20  # larger files are compared by size and time

_noted: dict[str, object] = {}


def code_files() -> list[Path]:
    """The Python files of all stages, without files that editors leave."""
    return [path for path in files_in(CODE) if path.suffix == ".py"]


def files_in(path: Path) -> list[Path]:
    """The file ``path``, or the sorted files in the folder ``path``, as DVC hashes them."""
    return [
        file
        for file in sorted((path, *path.rglob("*")))
        if file.is_file() and not any(map(IGNORED.fullmatch, file.relative_to(path).parts))
    ]


def note_inputs(start_seconds: float) -> None:
    """Remember the present content of all inputs that dvc.yaml lists for this stage.

    Args:
        start_seconds: When this process began to import the code, by the file system's clock.

    Raises:
        UserError: If the code has changed since then.
    """
    late = [path for path in code_files() if path.stat().st_ctime > start_seconds]
    if late:
        raise UserError(
            f"{_stage()}: {min(late)} changed while the stage started. Run the stage again."
        )
    _noted.update(_inputs())


def require_same_inputs(within: str = "") -> None:
    """Check that no input has changed since ``note_inputs``.

    Args:
        within: Check only the inputs whose names start with this text.

    Raises:
        UserError: Naming the first three inputs that have changed.
    """
    before = {name: content for name, content in _noted.items() if name.startswith(within)}
    now = _inputs(within) if before else {}
    changed = sorted(
        name for name in before.keys() | now.keys() if before.get(name) != now.get(name)
    )
    if changed:
        raise UserError(
            f"{_stage()}: {' and '.join(changed[:3])} changed while the stage ran, so its"
            " outputs are not recorded. To keep the work, undo the change and run the stage again."
            " To use the change, run the stage again."
        )


def listed_code() -> list[Path]:
    """The files and folders of code that dvc.yaml lists for this stage."""
    return [path for path in _declared()[0] if path.parts[0] == CODE.name and path.exists()]


def _inputs(within: str = "") -> dict[str, object]:
    paths, keys = _declared()
    contents = {
        str(file): _content(file)
        for path in paths
        for file in files_in(path)
        if str(file).startswith(within)
    }
    return contents | ({} if within else _parameters(keys))


def _content(path: Path) -> object:
    status = path.stat()
    if status.st_size > MAX_READ_BYTES:
        return status.st_size, status.st_mtime_ns
    return sha256(path.read_bytes()).digest()


def _parameters(keys: list[str]) -> dict[str, object]:
    try:
        content = read_yaml(PARAMS)
    except UserError:  # a user is editing the file
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
    """The paths and the parameters of this stage that dvc.yaml names in plain text."""
    try:
        stage = read_yaml(PIPELINE)["stages"][_stage()]
        deps, params = stage.get("deps", []), stage.get("params", [])
        paths = [Path(path) for path in deps if isinstance(path, str)]
        return paths, [key for key in params if isinstance(key, str)]
    except (
        UserError,
        LookupError,
        TypeError,
        AttributeError,
    ):  # DVC refuses such a file
        return [], []


def _stage() -> str:
    return str(getattr(sys.modules["__main__"].__spec__, "name", "")).removeprefix("stages.")

"""The project's folders, and files that are written completely or not at all."""

import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from glob import escape
from pathlib import Path
from typing import Any

from stages.base.errors import UserError

CODE = Path(__file__).parents[1]
PARAMS, PIPELINE = Path("params.yaml"), Path("dvc.yaml")
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
STATISTICS = PREPARED / "statistics.json"
PREPARE_PARAMS = PREPARED / "parameters.json"  # those that made the rows
TRAINED = Path("models/trained")
WEIGHTS = TRAINED / "weights.safetensors"
HISTORY = TRAINED / "history.csv"
RELEASE = Path("models/release")
EVALUATION = Path("metrics/evaluation.json")
PREDICTIONS = Path("metrics/predictions.parquet")
PLOTS = Path("metrics/plots")
FIGURE = PLOTS / "figure.svg"

# As in .dvcignore: byte code and the files that editors leave are not inputs.
IGNORED = re.compile(r"\..*|__pycache__|.*~")


def remove(path: Path) -> None:
    """Delete a folder, a file or a link, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write sorted, indented JSON, completely or not at all; NaN and infinity raise ValueError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_aside(path, f"{text}\n".encode())


def write_aside(path: Path, content: bytes) -> None:
    """Write a draft beside ``path``, wait until it is on the disk, and rename it to ``path``."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """Return the path of a draft beside ``path``; those of killed processes are deleted."""
    for leftover in path.parent.glob(f".{escape(path.name)}.*.draft"):
        leftover.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.draft")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that a stage has written.

    Raises:
        UserError: If the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run `dvc repro`.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}. Delete it, then run `dvc repro`.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: not a JSON object. Delete it, then run `dvc repro`.")
    return content


def sha256(path: Path) -> str:
    """A file's SHA-256, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(path: Path) -> list[Path]:
    """The file ``path``, or the sorted files in the folder ``path``, as DVC hashes them."""
    return [
        file
        for file in sorted((path, *path.rglob("*")))
        if file.is_file() and not any(map(IGNORED.fullmatch, file.relative_to(path).parts))
    ]


def write_csv(path: Path, header: list[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table; a float becomes the shortest text that reads back as the same number."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

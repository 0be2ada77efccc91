"""Open a release: nobody gets the model without having verified it. No file is run as code."""

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from stages.base.errors import UserError, cut
from stages.model.model import Model
from stages.release.manifest import MANIFEST, MODEL, ONNX, Manifest, describe_file


class Release(NamedTuple):
    """A verified release."""

    manifest: Manifest
    model: Model


def open_release(folder: Path) -> Release:
    """Verify a release and load its model.

    Raises:
        UserError: Naming the file that is missing, damaged, or of another release.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{path} does not exist. Give the folder of a release.")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _changed(path, cut(" ".join([*map(repr, first["loc"]), first["msg"]]))) from None
    for model_path in (folder / MODEL, folder / ONNX):
        found = describe_file(model_path) if model_path.is_file() else None
        if found != manifest.files.get(model_path.name):
            why = f"its size or SHA-256 is not the one in {MANIFEST}" if found else "it is missing"
            raise _changed(model_path, why)
    return Release(manifest, Model.load(folder / MODEL))


def _changed(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not as it was released: {why}. Get the release again, or run"
        " `dvc repro --force save`."
    )

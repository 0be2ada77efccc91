"""Open a release: nobody gets the model without having verified it. No file is run as code."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from stages.base.errors import UserError, cut
from stages.model.model import Model
from stages.release.manifest import MANIFEST, MODEL, ONNX, Manifest, describe_file


@dataclass(frozen=True)
class Release:
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
        listed = manifest.files.get(model_path.name)
        if (describe_file(model_path) if model_path.is_file() else None) != listed:
            why = f"its size or SHA-256 is not the one in {MANIFEST}"
            raise _changed(model_path, why if model_path.is_file() else "it is missing")
    model = Model.load(folder / MODEL)
    names = [column.name for column in (*manifest.inputs, manifest.target)]
    if names != [*model.features, model.target] or manifest.categories != model.categories:
        raise _changed(path, f"it does not describe {MODEL}")
    return Release(manifest, model)


def _changed(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not as it was released: {why}. Get the release again, or run"
        " `dvc repro --force save`."
    )

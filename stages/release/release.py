"""Open a release: nobody gets the model without having verified it."""

from dataclasses import dataclass
from pathlib import Path

from stages.model.model import Model
from stages.release.manifest import MODEL, Manifest
from stages.release.verify import verify_release


@dataclass(frozen=True)
class Release:
    """A verified release."""

    manifest: Manifest
    model: Model
    onnx: bytes | None


def open_release(folder: Path) -> Release:
    """Verify a release and load its model.

    Raises:
        UserError: Naming the file that is missing, damaged, or of another release.
    """
    manifest, onnx = verify_release(folder)
    return Release(manifest, Model.load(folder / MODEL), onnx)

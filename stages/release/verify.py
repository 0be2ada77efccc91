"""Verify a release: no file in it is run as code, and no file is trusted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stages.base.errors import UserError
from stages.base.files import sha256
from stages.model.signature import open_weights
from stages.release.manifest import FILES, MANIFEST, MODEL, ONNX, File, Manifest

MAX_KEY_CHARACTERS = 60


def verify_release(folder: Path) -> tuple[Manifest, bytes | None]:
    """Read and verify model.json, the weights and, if there is one, model.onnx.

    Returns:
        The content of model.json, and that of model.onnx.

    Raises:
        UserError: Naming the file that is missing, damaged, or of another release.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Give the folder of a release.")
    try:
        manifest = Manifest.model_validate_json(_read(path))
        described = manifest.signature()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = [repr(key)[:MAX_KEY_CHARACTERS] for key in first["loc"][:2]]
        raise _changed(path, " ".join([*location, first["msg"]])) from None
    if MODEL not in manifest.files:
        raise _changed(path, f"it does not list {MODEL}")
    for name in FILES:
        if (folder / name).exists() and name not in manifest.files:
            raise _changed(folder / name, f"{MANIFEST} does not list it")
    for name, file in manifest.files.items():
        _compare(folder / name, file)
    with open_weights(folder / MODEL, "numpy") as (signature, _):
        if signature != described:
            raise _changed(path, f"it does not describe {MODEL}")
    widths = [len(signature.features), *signature.hidden, 1]
    if manifest.architecture.widths != widths:
        raise _changed(path, f"`architecture.widths` must be {widths}, as in {MODEL}")
    return manifest, _read_onnx(folder / ONNX) if ONNX in manifest.files else None


def _compare(path: Path, file: File) -> None:
    if not path.is_file():
        raise _changed(path, "it is missing")
    size_bytes = path.stat().st_size
    if size_bytes != file.size_bytes:
        raise _changed(path, f"{size_bytes} bytes instead of {file.size_bytes}")
    if sha256(path) != file.sha256:
        raise _changed(path, f"its SHA-256 is not the one in {MANIFEST}")


def _read_onnx(path: Path) -> bytes:
    """Return the content; refuse a model that would read other files."""
    import onnx  # noqa: PLC0415 (slow to import, and many releases have no ONNX)
    from google.protobuf.message import DecodeError  # noqa: PLC0415 (comes with onnx)

    content = _read(path)
    try:
        proto = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise _changed(path, f"not an ONNX model: {error}") from None
    for message in _messages(proto):
        is_external = getattr(message, "data_location", 0) == onnx.TensorProto.EXTERNAL
        if is_external or getattr(message, "external_data", ()):
            raise _changed(path, "it reads weights from other files")
    if not proto.HasField("graph"):
        raise _changed(path, "not an ONNX model: it has no graph")
    return content


def _messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all messages in it, such as graphs in nodes and functions."""
    yield message
    for field, value in message.ListFields():
        if field.message_type:
            for part in value if field.is_repeated else [value]:
                yield from _messages(part)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise _changed(path, "it is missing")
    return path.read_bytes()


def _changed(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not as it was released: {why}. Get the release again, or run"
        " `dvc repro --force save`."
    )

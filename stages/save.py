"""Release the trained model, if it meets its requirements and its programs predict the same.

Run by `dvc repro`, or alone by `python -m stages.save`. Reads params.yaml, metrics/,
models/trained/ and data/prepared/; writes models/release/. It does not need PyTorch.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.base.errors import UserError
from stages.base.files import (
    EVALUATION,
    FIGURE,
    PREDICTIONS,
    PREPARED,
    RELEASE,
    STATISTICS,
    WEIGHTS,
    read_json,
    sha256,
    write_json,
)
from stages.base.outputs import output_folder
from stages.base.params import load_params
from stages.base.process import run
from stages.model.signature import open_weights
from stages.release.card import card
from stages.release.manifest import (
    FILES,
    MANIFEST,
    MODEL,
    ONNX,
    Architecture,
    File,
    Manifest,
    columns,
    proof,
)
from stages.release.proof import prove
from stages.release.reference import read_weights
from stages.release.verify import verify_release
from stages.rows.predictions import Predictions, origin_of
from stages.rows.split import SPLITS, Split, read_statistics


def main() -> None:
    params = load_params()
    evaluation = read_json(EVALUATION)
    require_scores(evaluation, params.save.require)
    name = "test" if "test" in evaluation else "train"
    split = Split(PREPARED / f"{name}.parquet")
    predictions = read_predictions(split)
    with output_folder(RELEASE) as folder:
        shutil.copyfile(WEIGHTS, folder / MODEL)
        if params.save.onnx:
            write_onnx(folder)
        try:
            manifest = build_manifest(folder, params.model_dump(), evaluation)
            text = card(manifest)
        except (KeyError, TypeError, ValueError):
            raise _damaged_scores() from None
        write_json(folder / MANIFEST, manifest.model_dump())
        (folder / "README.md").write_text(text, encoding="utf-8")
        shutil.copyfile(FIGURE, folder / FIGURE.name)
        manifest, onnx = verify_release(folder)
        differences = prove(folder, manifest, onnx, split, predictions)
    for program, difference in differences.items():
        print(
            f"save: {program} and PyTorch predict the same for {split.num_rows} {name}"
            f" rows; largest difference {difference:.0e}"
        )
    sizes = [f"{name}, {file.size_bytes} bytes" for name, file in sorted(manifest.files.items())]
    print(f"save: {RELEASE}: {'; '.join(sizes)}")


def write_onnx(folder: Path) -> None:
    """Write model.onnx beside the weights."""
    from stages.release.export import export  # noqa: PLC0415 (many releases have no ONNX)

    with open_weights(folder / MODEL, "numpy") as (signature, _):
        (folder / ONNX).write_bytes(export(read_weights(folder / MODEL), signature))


def read_predictions(split: Split) -> Predictions:
    """Return what `evaluate` predicted for the rows of ``split``.

    Raises:
        UserError: If predictions, scores or figure are those of other weights or rows.
    """
    predictions = Predictions(PREDICTIONS)
    origin = origin_of(FIGURE, EVALUATION.read_bytes())
    if predictions.origin != origin or predictions.num_rows != split.num_rows:
        raise UserError(
            f"save: {EVALUATION}, {FIGURE} and {PREDICTIONS} were not made from {WEIGHTS} and"
            f" {STATISTICS}. Run `dvc repro --force evaluate`."
        )
    return predictions


def build_manifest(folder: Path, parameters: dict[str, Any], scores: dict[str, Any]) -> Manifest:
    """Collect the content of model.json."""
    statistics = read_statistics(Split(PREPARED / "train.parquet"))
    with open_weights(folder / MODEL, "numpy") as (signature, _):
        *inputs, target = columns(signature, statistics)
    names = [name for name in FILES if (folder / name).exists()]
    prepared = [STATISTICS, *(PREPARED / f"{name}.parquet" for name in SPLITS)]
    return Manifest(
        inputs=inputs,
        target=target,
        categories=signature.categories,
        architecture=Architecture(
            hidden=signature.hidden, widths=[len(inputs), *signature.hidden, 1]
        ),
        trained_on=signature.trained_on,
        versions=signature.versions,
        parameters=parameters,
        scores=scores,
        data={path.name: sha256(path) for path in prepared},
        files={
            name: File(sha256=sha256(folder / name), size_bytes=(folder / name).stat().st_size)
            for name in names
        },
        proof=proof(signature, statistics, has_onnx=ONNX in names),
    )


def require_scores(evaluation: dict[str, Any], required: Mapping[Any, float]) -> None:
    """Check the scores of the test rows or, if there are none, of the training rows.

    Raises:
        UserError: One sentence for each requirement that is not met, sorted by name.
    """
    split = "test" if "test" in evaluation else "train"
    scores = evaluation.get(split)
    if not isinstance(scores, dict) or not all(isinstance(s, int | float) for s in scores.values()):
        raise _damaged_scores()
    faults = []
    for name, wanted in sorted(required.items()):
        reached = scores.get(name)
        is_met = reached is not None and (reached >= wanted if name == "r2" else reached <= wanted)
        if not is_met:
            rule = "at least" if name == "r2" else "at most"
            faults.append(
                f"save: `save.require.{name}` must be {rule} {wanted:g} for a release. Got"
                f" {'none' if reached is None else format(reached, '.6g')} on the {split} rows."
            )
    if faults:
        raise UserError("\n".join(faults))


def _damaged_scores() -> UserError:
    return UserError(
        f"{EVALUATION} is damaged: scores are missing or are not numbers. Run `dvc repro --force"
        " evaluate`."
    )


if __name__ == "__main__":
    run(main)

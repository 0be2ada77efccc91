"""Release the trained model, if it meets its requirements and its programs predict the same.

Run by `dvc repro`, or alone by `python -m stages.save`. Reads params.yaml, metrics/,
models/trained/ and data/prepared/; writes models/release/. It does not need PyTorch.
"""

import math
import shutil
from pathlib import Path
from typing import Any

from stages.base.errors import UserError
from stages.base.files import (
    EVALUATION,
    FIGURE,
    PREPARE_PARAMS,
    PREPARED,
    RELEASE,
    STATISTICS,
    WEIGHTS,
    read_json,
    write_json,
)
from stages.base.outputs import output_folder
from stages.base.params import SaveParams, load_params
from stages.base.process import run
from stages.model.signature import read_signature
from stages.release.card import card
from stages.release.manifest import MANIFEST, MODEL, ONNX, Column, Manifest, describe_file
from stages.release.proof import prove, tolerance
from stages.rows.predictions import Predictions, scored_split
from stages.rows.split import SPLITS, Split, Statistics, read_statistics


def main() -> None:
    params = load_params().save
    evaluation = read_json(EVALUATION)
    statistics = read_statistics(Split(PREPARED / "train.parquet"))
    name = scored_split(statistics)
    split = Split(PREPARED / f"{name}.parquet")
    predictions = Predictions(split)
    require_scores(evaluation[name], name, params.require)
    with output_folder(RELEASE) as folder:
        shutil.copyfile(WEIGHTS, folder / MODEL)
        shutil.copyfile(FIGURE, folder / FIGURE.name)
        if params.onnx:
            from stages.release.export import export  # noqa: PLC0415 (not for every release)

            (folder / ONNX).write_bytes(export(folder / MODEL))
        manifest = build_manifest(folder, statistics, params, evaluation, predictions.hashes)
        write_json(folder / MANIFEST, manifest.model_dump())
        (folder / "README.md").write_text(card(manifest), encoding="utf-8")
        differences = prove(folder, split, predictions)
    for program, difference in differences.items():
        print(
            f"save: {program} and PyTorch predict the same for {split.num_rows} {name}"
            f" rows; largest difference {difference:.0e}"
        )
    sizes = [f"{name}, {file['size_bytes']} bytes" for name, file in manifest.files.items()]
    print(f"save: {RELEASE}: {'; '.join(sizes)}")


def require_scores(scores: dict[str, float], split: str, required: dict[Any, float]) -> None:
    """Check the scores of the rows of ``split``.

    Raises:
        UserError: One sentence for each requirement that is not met, sorted by name.
    """
    faults = []
    for name, wanted in sorted(required.items()):
        reached = scores.get(name, math.nan)  # R² may be missing
        is_least = name == "r2"
        if not (reached >= wanted if is_least else reached <= wanted):
            faults.append(
                f"save: `save.require.{name}` must be {'at least' if is_least else 'at most'}"
                f" {wanted:g} for a release. Got {reached:.6g} on the {split} rows."
            )
    if faults:
        raise UserError("\n".join(faults))


def build_manifest(
    folder: Path,
    statistics: Statistics,
    params: SaveParams,
    scores: dict[str, Any],
    hashes: dict[str, str],
) -> Manifest:
    """Return the content of model.json for the model files in ``folder``."""
    low, high, mean = statistics.minimum, statistics.maximum, statistics.mean
    signature = read_signature(folder / MODEL)
    dtype = signature.dtype
    *inputs, target = [
        Column(name=name, type=dtype, minimum=low[name], maximum=high[name], mean=mean[name])
        for name in [*signature.features, signature.target]
    ]
    widths = None if signature.hidden is None else [len(inputs), *signature.hidden, 1]
    data = [STATISTICS.name, *(f"{name}.parquet" for name in SPLITS)]
    model_files = [ONNX, MODEL] if params.onnx else [MODEL]
    split = scored_split(statistics)
    return Manifest(
        **signature.model_dump(include={"categories", "not_portable", "trained_on", "versions"}),
        inputs=inputs,
        target=target,
        fill=statistics.fill,
        architecture={"network": signature.network, "widths": widths},
        parameters={  # those that made the rows, the weights and the release
            "prepare": read_json(PREPARE_PARAMS),
            "train": signature.train.model_dump(),
            "save": params.model_dump(),
        },
        scores=scores,
        data={name: hashes[name] for name in data},
        files={name: describe_file(folder / name) for name in model_files},
        proof={
            "split": split,
            "rows": statistics.rows[split],
            "programs": ["numpy" if widths else "pytorch", *model_files[:-1]],
            "difference_at_most": tolerance(signature),
        },
    )


if __name__ == "__main__":
    run(main)

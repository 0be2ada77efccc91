"""Release the trained model, if it meets its requirements and a new process can use it.

Reads params.yaml, metrics/evaluation.json, models/trained/ and data/prepared/; writes
models/release/.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from stages.parts.errors import UserError
from stages.parts.files import EVALUATION, RELEASE, WEIGHTS, output_folder, read_json
from stages.parts.params import load_params
from stages.parts.process import run

PROOF = "stages.parts.proof"


def main() -> None:
    params = load_params().save
    evaluation = read_json(EVALUATION)
    require_scores(evaluation, params.require)
    with output_folder(RELEASE) as folder:
        released = folder / "model.safetensors"
        if not WEIGHTS.exists():
            raise UserError(
                f"{WEIGHTS} does not exist. Run `dvc repro`, or `python -m stages.train`."
            )
        shutil.copyfile(WEIGHTS, released)
        if subprocess.run([sys.executable, "-m", PROOF, str(released)], check=False).returncode:  # noqa: S603 (our own module)
            raise UserError(f"save: not released; {RELEASE} is as it was.")
        size_bytes = released.stat().st_size
    print(f"save: {RELEASE}/model.safetensors, {size_bytes} bytes")


def require_scores(evaluation: dict[str, Any], required: Mapping[Any, float]) -> None:
    """Check the scores of the test rows, or of the training rows where there are no test rows.

    Raises:
        UserError: With one sentence for every requirement that is not met, sorted.
    """
    split = "test" if "test" in evaluation else "train"
    scores = evaluation.get(split)
    if not isinstance(scores, dict) or not all(isinstance(s, int | float) for s in scores.values()):
        raise UserError(f"{EVALUATION} is damaged: no scores. Run `dvc repro --force evaluate`.")
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


if __name__ == "__main__":
    run(main)

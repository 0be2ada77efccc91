"""Print what a branch changes in parameters and results, as Markdown for a pull request.

Usage: python .ci/report.py BASE [URL OF THE FIGURE]. The exit status is 1 if the model is worse
than the one of BASE: its RMSE on the validation rows (if there are none, on the training rows) is
more than 1 % higher. It is 1, too, if the scores are not those of the model in dvc.lock.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from compare import ranking_split
from dvc.exceptions import DvcException
from dvc.utils.serialize import parse_yaml

TOLERANCE = 0.01
EVALUATION, LOCK, PARAMS = "metrics/evaluation.json", "dvc.lock", "params.yaml"
TRAINED = "models/trained"


def main() -> None:
    base, *figure = sys.argv[1:] or [""]
    output("git", "rev-parse", "--verify", f"{base}^{{commit}}")
    old = [output("git", "show", f"{base}:./{name}") for name in (EVALUATION, LOCK)]
    new = [Path(name).read_text(encoding="utf-8") for name in (EVALUATION, LOCK)]
    print(f"### Parameters\n\n{table('params', base)}\n")
    print(f"### Metrics\n\n{table('metrics', '--precision', '17', base)}\n")
    for url in figure:
        print(f"![Losses, fit and residuals]({url})\n")
    try:
        (old_scores, new_scores), (old_stages, new_stages) = [
            [json.loads(text) for text in (old[0], new[0])],
            [parse_yaml(text, LOCK)["stages"] for text in (old[1], new[1])],
        ]
        verdict = (
            mixed_runs(new_stages)
            or other_rows(old_scores, old_stages, new_scores, new_stages)
            or worse(ranking_split(new_scores), old_scores, new_scores)
        )
    except (ValueError, TypeError, KeyError, DvcException) as error:
        verdict = f"{EVALUATION} or {LOCK} is damaged, here or in {base} ({error!r})."
    if verdict:
        print(f"**{verdict}**")
        sys.exit(verdict)


def table(kind: str, *options: str) -> str:
    """Return the changes as a table, scores of test rows last. DVC prints its head in any case."""
    lines = output(sys.executable, "-m", "dvc", kind, "diff", "--md", *options).splitlines()
    lines.sort(key=lambda line: " test." in line)
    return "\n".join(lines) if len(lines) > 2 else "No change."


def output(*command: str) -> str:
    """Return what a command prints; if it fails, exit with its error."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"`{' '.join(command)}` failed: {result.stderr.strip()}")
    return result.stdout.strip()


def mixed_runs(stages: dict[str, Any]) -> str | None:
    """Return a sentence if parameters, dvc.lock and scores are not of one run of all stages."""
    files = [entry for stage in stages.values() for entry in stage["deps"] + stage["outs"]]
    recorded = [(entry["path"], entry["md5"]) for entry in files]
    evaluate = sorted((entry["path"], entry["md5"]) for entry in stages["evaluate"]["deps"])
    trained = [  # as DVC hashes a folder
        {"md5": found, "relpath": path.removeprefix(f"{TRAINED}/")}
        for path, found in evaluate
        if path.startswith(f"{TRAINED}/")
    ]
    recorded += [(TRAINED, f"{md5(json.dumps(trained).encode())}.dir")]
    recorded += [(EVALUATION, md5(Path(EVALUATION).read_bytes()))]
    hashes = dict(recorded)
    mixed = sorted(path for path, found in recorded if found != hashes[path])
    params = parse_yaml(Path(PARAMS).read_text(encoding="utf-8"), PARAMS)
    for stage in stages.values():
        for key, value in stage["params"][PARAMS].items():
            now: Any = params
            for part in key.split("."):
                now = now.get(part) if isinstance(now, dict) else None
            mixed += [f"`{key}`"] * (now != value)
    if mixed:
        return f"{mixed[0]} is not of the run that {LOCK} records. Run `dvc repro`, and commit."
    return None


def md5(content: bytes) -> str:
    """Return the hash that dvc.lock holds."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def other_rows(
    old_scores: Any, old_stages: dict[str, Any], new_scores: Any, new_stages: dict[str, Any]
) -> str | None:
    """Return a sentence if the scores are of other things; only say so if rows have changed."""
    split, old_split = ranking_split(new_scores), ranking_split(old_scores)
    if split != old_split:
        return f"The scores are of {split} rows now, but were of {old_split} rows before."
    old, new = (
        stages["prepare"]["params"][PARAMS]["prepare"] for stages in (old_stages, new_stages)
    )
    if old["target"] != new["target"]:
        return f"The target is `{new['target']}` now, but was `{old['target']}` before."
    hashes = [
        entry["md5"]
        for stages in (old_stages, new_stages)
        for entry in stages["train"]["deps"]
        if entry["path"] == f"data/prepared/{split}.parquet"
    ]
    if hashes[0] != hashes[1]:
        print(f"The {split} rows have changed: the errors before and now are of different rows.\n")
    return None


def worse(split: str, old: Any, new: Any) -> str | None:
    """Return a sentence if the RMSE on the rows of ``split`` is worse than the tolerance."""
    before, after = old[split]["rmse"], new[split]["rmse"]
    if not 0 <= after <= (1 + TOLERANCE) * before:  # NaN is neither
        return (
            f"RMSE on the {split} rows is worse by more than 1 %: {after:.6g} after {before:.6g}."
        )
    print(f"RMSE on the {split} rows is not worse: {after:.6g} after {before:.6g}.")
    return None


if __name__ == "__main__":
    main()

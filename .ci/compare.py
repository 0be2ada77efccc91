"""Compare the scores of the workspace, the last commit and its experiments, the best first.

Models are ranked by their RMSE on the validation rows or, where there are none, on the training
rows, and only among those that were scored on the same rows. The test rows stand last.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd

SCORED = "metrics/evaluation.json"
MISSING = object()
NOTES = {
    "validation": "; test rows are for one last look",
    "train": ", since there are no validation rows: a larger network looks better than it is",
}


def main() -> None:
    words = ["exp", "show", "--json", "--hide-failed", "--hide-queued"]
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.exit(result.stderr.strip())
    models = [*scored_models(json.loads(result.stdout))]
    if not models:
        sys.exit("compare: there are no scores yet. Run `dvc repro`, or `make run`.")
    flat = [flatten(params) for _, _, params, _ in models]
    keys = dict.fromkeys(key for params in flat for key in params)
    changed = [key for key in keys if any(p.get(key, MISSING) != flat[0].get(key) for p in flat)]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}  # the workspace's is the first
    for (name, scores, params, deps), values in zip(models, flat, strict=True):
        split = ranking_split(scores)
        rows_md5 = deps.get(f"data/prepared/{split}.parquet", {}).get("hash", "")
        group = split, rows_md5, params["prepare"]["target"]
        row: dict[str, Any] = {"model": name}
        row |= {f"{s}.rmse": scores[s]["rmse"] for s in ("validation", "train") if s in scores}
        row |= {
            key: json.dumps(values[key], ensure_ascii=False) for key in changed if key in values
        }
        row |= {f"{s}.rmse": scores[s]["rmse"] for s in ("test",) if s in scores}
        groups.setdefault(group, []).append(row)
    for number, ((split, _, target), rows) in enumerate(groups.items()):
        other = "Not comparable with the models above, because of other rows: " if number else ""
        print(f"{other}RMSE of `{target}`, ranked by the {split} rows{NOTES[split]}")
        table = pd.DataFrame(rows).sort_values(f"{split}.rmse", kind="stable")
        print(table.to_string(index=False, na_rep="", float_format="{:.6g}".format), end="\n\n")


def scored_models(commits: list[dict[str, Any]]) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield name, scores, parameters and files read of all that has scores."""
    for commit in commits:
        found = [(commit["name"] or commit["rev"], commit)]
        experiments = commit.get("experiments") or []
        found += [(e["name"], e["revs"][0]) for e in experiments if has_ended(e)]
        for name, entry in found:
            data = entry.get("data") or {}
            scores = data.get("metrics", {}).get(SCORED, {}).get("data")
            params = data.get("params", {}).get("params.yaml", {}).get("data")
            if scores and params:
                yield name, scores, params, data["deps"]


def has_ended(experiment: dict[str, Any]) -> bool:
    """Tell whether an experiment of the queue, or any other one, has ended."""
    return (experiment["executor"] or {"state": "success"})["state"] == "success"


def ranking_split(scores: dict[str, Any]) -> str:
    """Name the rows by which models are chosen: validation or, if there are none, training rows."""
    return "validation" if "validation" in scores else "train"


def flatten(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Map `section.key` to each value."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        is_section = isinstance(value, dict) and not prefix
        flat |= flatten(value, f"{key}.") if is_section else {prefix + key: value}
    return flat


if __name__ == "__main__":
    main()

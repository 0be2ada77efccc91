"""Print what a branch changes in parameters and results, as Markdown for a pull request.

Usage: python .ci/report.py BASE [URL OF THE FIGURE]. The exit status is 1 if the model is worse
than the one of BASE: its RMSE on the test rows (if there are none, on the training rows) is more
than 1 % higher.
"""

import json
import subprocess
import sys

TOLERANCE = 0.01
EVALUATION = "metrics/evaluation.json"


def main() -> None:
    base, *figure = sys.argv[1:] or [""]
    output("git", "rev-parse", "--verify", f"{base}^{{commit}}")
    old, new = output("git", "show", f"{base}:{EVALUATION}"), output("cat", EVALUATION)
    print(f"### Parameters\n\n{table('params', base)}\n")
    print(f"### Metrics\n\n{table('metrics', '--precision', '17', base)}\n")
    for url in figure:
        print(f"![Losses, fit and residuals]({url})\n")
    try:
        verdict = worse(json.loads(old), json.loads(new))
    except (ValueError, TypeError, KeyError) as error:
        verdict = f"{EVALUATION} has no scores, here or in {base} ({error!r})."
    if verdict:
        print(f"**{verdict}**")
        sys.exit(verdict)


def table(kind: str, *options: str) -> str:
    """Return the changes as a table. DVC prints its head even if nothing has changed."""
    text = output(sys.executable, "-m", "dvc", kind, "diff", "--md", *options)
    return text if len(text.splitlines()) > 2 else "No change."


def output(*command: str) -> str:
    """Return what a command prints; if it fails, exit with its error."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"`{' '.join(command)}` failed: {result.stderr.strip()}")
    return result.stdout.strip()


def worse(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> str | None:
    """Return a sentence if the scores are worse than the tolerance, or cannot be compared."""
    splits = ["test" if "test" in evaluation else "train" for evaluation in (before, after)]
    if splits[0] != splits[1]:
        return f"The scores are of {splits[1]} rows now, but were of {splits[0]} rows before."
    old, new = (evaluation[splits[0]]["rmse"] for evaluation in (before, after))
    if not 0 <= new <= (1 + TOLERANCE) * old:  # NaN is neither
        return f"RMSE on the {splits[0]} rows is worse by more than 1 %: {new:.6g} after {old:.6g}."
    return None


if __name__ == "__main__":
    main()

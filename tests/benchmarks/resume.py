"""Measure the cost of checkpoints: time per save, size, and share of the training time.

Run it in the project's folder: python tests/benchmarks/resume.py
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import yaml

from stages import prepare, train
from stages.training.checkpoint import Checkpoint

JOBS = {
    "line": {"rows": 1000, "epochs": 30_000},
    "10⁶ × 1, 64-64": {"rows": 1_000_000, "hidden": [64, 64], "epochs": 10},
    "1000-1000, Adam": {"rows": 2000, "hidden": [1000, 1000], "optimizer": "adam", "epochs": 50},
}
RUNS = 4
SAVE = Checkpoint.save_if_due
params = yaml.safe_load(Path("params.yaml").read_text())
durations: list[float] = []
sizes: list[int] = []


def seconds() -> float:
    start = time.perf_counter()
    train.main()
    return time.perf_counter() - start


def save_and_note(self, state):
    """Save if it is time; then note the duration and the size of the file."""
    start, next_save = time.perf_counter(), self._next_save
    SAVE(self, state)
    if self._next_save != next_save:
        durations.append(time.perf_counter() - start)
        sizes.append(self._path.stat().st_size)


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)
    os.chdir(tempfile.mkdtemp())
    for job, changes in JOBS.items():
        content = {
            name: dict(section) if isinstance(section, dict) else section
            for name, section in params.items()
        }
        for name, value in changes.items():
            content["prepare" if name == "rows" else "train"][name] = value
        Path("params.yaml").write_text(yaml.safe_dump(content))
        prepare.main()
        durations.clear()
        sizes.clear()
        pairs = []
        for _ in range(RUNS):
            Checkpoint.save_if_due = save_and_note
            resumable = seconds()
            Checkpoint.save_if_due = lambda _self, _state: None
            pairs.append((resumable, seconds()))
        ratios = [one / other for one, other in pairs]
        share = sum(durations) / sum(one for one, _ in pairs)
        print(
            f"{job}: {len(durations)} saves in {RUNS} runs of"
            f" {statistics.median(one for one, _ in pairs):.1f} s,"
            f" {1000 * statistics.median(durations):.1f} ms each, {sizes[-1] / 1000:.0f} kB;"
            f" saving is {100 * share:.2f} % of the time; with / without saving"
            f" {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()

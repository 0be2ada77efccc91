"""A forced `dvc repro` against the same four steps as plain scripts: time, and peak memory.

Run it in the project's folder: python tests/benchmarks/pipeline.py
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = ("prepare", "train", "evaluate", "save")
RUNS = 7


def seconds(folder: Path, commands: list[list[str]]) -> float:
    start = time.perf_counter()
    for words in commands:
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def peak_megabytes(folder: Path, words: list[str]) -> float:
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_maxrss / 1024


def main() -> None:
    plain, ours = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    shutil.copytree(Path(__file__).with_name("plain"), plain, dirs_exist_ok=True)
    subprocess.run(["git", "clone", "-q", ".", str(ours)], check=True)
    plain_steps = [[sys.executable, f"{step}.py"] for step in STEPS]
    our_stages = [[sys.executable, "-m", f"stages.{step}"] for step in STEPS]
    repro = [["dvc", "repro", "--force"]]
    pairs = [(seconds(ours, repro), seconds(plain, plain_steps)) for _ in range(RUNS + 1)][1:]
    ratios = [one / other for one, other in pairs]
    print(f"dvc repro --force {statistics.median(one for one, _ in pairs):.2f} s")
    print(f"four plain scripts {statistics.median(other for _, other in pairs):.2f} s")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    for step, stage, script in zip(STEPS, our_stages, plain_steps, strict=True):
        ours_mb, plain_mb = peak_megabytes(ours, stage), peak_megabytes(plain, script)
        print(f"{step}: peak {ours_mb:.0f} MiB, plain {plain_mb:.0f} MiB")


if __name__ == "__main__":
    main()

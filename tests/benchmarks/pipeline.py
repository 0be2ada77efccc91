"""A forced `dvc repro`, with ONNX and without, beside the same steps as plain scripts, in turns.

Run it in the project's folder: python tests/benchmarks/pipeline.py
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.tables import STAGES, Cost, cost

RUNS = 5


def run(folder: Path) -> dict[str, Cost]:
    """Each step by itself and, of ours, all of them by DVC."""
    if not (folder / "dvc.yaml").exists():
        return {step: cost(folder, [sys.executable, f"{step}.py"]) for step in STAGES}
    repro = {"dvc repro": cost(folder, ["dvc", "repro", "--force"])}
    return repro | {step: cost(folder, [sys.executable, "-m", f"stages.{step}"]) for step in STAGES}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folders = {each: Path(name, each) for each in ("ours", "ours without ONNX", "plain")}
        for each, folder in folders.items():
            if each == "plain":
                shutil.copytree(Path(__file__).with_name("plain"), folder)
            else:
                subprocess.run(["git", "clone", "-q", ".", str(folder)], check=True)
        params = folders["ours without ONNX"] / "params.yaml"
        params.write_text(params.read_text().replace("onnx: true", "onnx: false"))
        runs = [{each: run(folder) for each, folder in folders.items()} for _ in range(RUNS + 1)]
    for each, costs in runs[0].items():
        for step in costs:
            found = [one[each][step] for one in runs[1:]]
            seconds, peak = median(one.seconds for one in found), max(one.peak_mib for one in found)
            print(f"{each}, {step}: {seconds:.2f} s, {peak:.0f} MiB")
        if each != "plain":
            ratios = [
                one[each]["dvc repro"].seconds / sum(step.seconds for step in one["plain"].values())
                for one in runs[1:]
            ]
            print(f"{each} / plain: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()

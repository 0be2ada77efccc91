"""Time a forced `dvc repro`, with and without ONNX, beside the same steps as plain scripts.

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

RUNS = 7


def run(folder: Path) -> dict[str, Cost]:
    """Measure each step alone and, in our project, also all steps by DVC."""
    if not (folder / "dvc.yaml").exists():
        return {step: cost(folder, [sys.executable, f"{step}.py"]) for step in STAGES}
    repro = {"dvc repro": cost(folder, ["dvc", "repro", "--force"])}
    return repro | {step: cost(folder, [sys.executable, "-m", f"stages.{step}"]) for step in STAGES}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folders = {
            project: Path(name, project) for project in ("ours", "ours without ONNX", "plain")
        }
        for project, folder in folders.items():
            if project == "plain":
                shutil.copytree(Path(__file__).with_name("plain"), folder)
            else:
                subprocess.run(["git", "clone", "-q", ".", str(folder)], check=True)
        params = folders["ours without ONNX"] / "params.yaml"
        params.write_text(params.read_text().replace("onnx: true", "onnx: false"))
        runs = [
            {project: run(folder) for project, folder in folders.items()} for _ in range(RUNS + 1)
        ]
    for project, costs in runs[0].items():
        for step in costs:
            step_costs = [run_costs[project][step] for run_costs in runs[1:]]
            seconds = median(item.seconds for item in step_costs)
            peak = max(item.peak_mib for item in step_costs)
            print(f"{project}, {step}: {seconds:.2f} s, {peak:.0f} MiB")
        if project != "plain":
            ratios = [
                run_costs[project]["dvc repro"].seconds
                / sum(step.seconds for step in run_costs["plain"].values())
                for run_costs in runs[1:]
            ]
            print(
                f"{project} / plain: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()

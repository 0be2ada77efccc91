"""Kill `dvc repro` at random instants, run again, and compare every byte with a calm run's.

Run it in the project's folder: python tests/faults/kills.py [RUNS] [SEED] [PROCESSES]
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conftest import contents, copy_project

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)  # half of them SIGKILL
TARGETS = ("the whole group", "dvc alone", "the stage alone")
EPOCHS = 20_000  # most of the run
MAX_SECONDS = 300


class Calm(NamedTuple):
    """A project before any run, what a calm run of it writes, and how long that takes."""

    project: Path
    words: tuple[str, ...]
    outputs: dict[str, bytes]
    seconds: float


class Kill(NamedTuple):
    """What was killed when, and where the pipeline was."""

    signal: str
    target: str
    stage: str
    resumed: bool


def calm_run(folder: Path, num_epochs: int, *targets: str) -> Calm:
    """Copy the project with a long training, and run it without a disturbance."""
    project = copy_project(folder / "project")
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 200 ", f"epochs: {num_epochs} "))
    (project / "dvc.lock").unlink()
    copy = shutil.copytree(project, folder / "calm")
    words = (sys.executable, "-m", "dvc", "repro", *targets)
    start = time.monotonic()
    subprocess.run(words, cwd=copy, env=environment(), check=True, capture_output=True)
    return Calm(project, words, outputs(copy), time.monotonic() - start)


def environment() -> dict[str, str]:
    """This environment, with its programs first, and one thread."""
    inherited = {
        name: value for name, value in os.environ.items() if name[:4] not in {"DVC_", "GIT_"}
    }
    path = f"{Path(sys.executable).parent}:{inherited['PATH']}"
    return inherited | {"PATH": path, "OMP_NUM_THREADS": "1"}


def outputs(folder: Path) -> dict[str, bytes]:
    """All that the stages write, litter included, and dvc.lock."""
    found = {
        f"{name}/{path}": content
        for name in ("data", "models", "metrics", "dvc.lock", ".resume")
        for path, content in contents(folder / name).items()
    }
    return {path: content for path, content in found.items() if not path.startswith("data/raw")}


def kill_and_run_again(calm: Calm, folder: Path, seed: int) -> Kill:
    """Disturb a run, then run until done, once; raise AssertionError if a byte differs."""
    generator = random.Random(seed)  # noqa: S311 (when to kill whom)
    signum, target = generator.choice(SIGNALS), generator.choice(TARGETS)
    shutil.copytree(calm.project, folder)
    log = folder.with_name(f"{folder.name}.log")
    with log.open("w") as file:
        process = subprocess.Popen(
            calm.words, cwd=folder, env=environment(), stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
        time.sleep(generator.uniform(0, calm.seconds))
        send(process, signum, target)
        process.wait(MAX_SECONDS)
    stages = re.findall(r"Running stage '(\w+)'", log.read_text())
    is_done = process.returncode == 0
    stage = "it had ended" if is_done else stages[-1] if stages else "none yet"
    subprocess.run([sys.executable, ".ci/lock.py"], cwd=folder, check=True)  # as `make run` does
    again = subprocess.run(
        calm.words, cwd=folder, env=environment(), check=False, capture_output=True, text=True,
        timeout=MAX_SECONDS,
    )  # fmt: skip
    printed = log.read_text() + again.stdout + again.stderr
    what = f"seed {seed}: {signum.name} to {target} in {stage}\n{printed}"
    assert again.returncode == 0, what
    assert "Traceback" not in again.stderr, what
    found = outputs(folder)
    differing = sorted(
        path for path in found | calm.outputs if found.get(path) != calm.outputs.get(path)
    )
    assert not differing, f"{differing}\n{what}"
    return Kill(signum.name, target, stage, "resumed at" in again.stdout)


def send(process: subprocess.Popen[bytes], signum: signal.Signals, target: str) -> None:
    """Signal DVC, its stage, or both and all they started; who has ended already is left alone."""
    try:
        if target == "the whole group":
            os.killpg(process.pid, signum)
        elif target == "dvc alone":
            process.send_signal(signum)
        else:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for child in children:
                os.kill(int(child), signum)
    except (ProcessLookupError, FileNotFoundError):
        pass


def main() -> None:
    num_runs, seed, num_processes = (
        int(given or default)
        for given, default in zip([*sys.argv[1:], "", "", ""][:3], (200, 1, 2), strict=True)
    )
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(num_processes) as pool:
        calm = calm_run(Path(name), EPOCHS)
        print(
            f"a calm run: {calm.seconds:.1f} s; seeds {seed} to {seed + num_runs - 1}", flush=True
        )

        def run(number: int) -> Kill | None:
            folder = Path(name, str(number))
            try:
                return kill_and_run_again(calm, folder, number)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                print(f"FAILED: {error}", flush=True)
                return None
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        kills = [*pool.map(run, range(seed, seed + num_runs))]
    found = [kill for kill in kills if kill]
    for title, column in zip(
        ("signal", "target", "killed in", "resumed"), zip(*found, strict=True), strict=True
    ):
        counts = sorted(Counter(map(str, column)).items())
        print(f"{title}: " + ", ".join(f"{value} {count}" for value, count in counts))
    print(
        f"{len(found)} of {num_runs} ended with the same bytes, in {time.monotonic() - start:.0f} s"
    )
    sys.exit(len(found) < num_runs)


if __name__ == "__main__":
    main()

"""Kill `dvc repro` at random instants, run it again, and compare all bytes with a calm run.

Run it in the project's folder: python tests/faults/kills.py RUNS SIGNAL[,SIGNAL…] [SEED]
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conftest import contents, copy_project

TARGETS = ("the whole group", "dvc alone", "the stage alone")
EPOCHS = 40_000  # most of the run
NUM_PROCESSES = 2
MAX_SECONDS = 300


class Calm(NamedTuple):
    """A project before any run, the outputs of a calm run, and the duration of another one."""

    project: Path
    arguments: tuple[str, ...]
    outputs: dict[str, bytes]
    seconds: float


class Kill(NamedTuple):
    """The signal, its target, the stage that ran, and whether training was resumed later."""

    signal: str
    target: str
    stage: str
    resumed: bool


def calm_run(folder: Path, num_epochs: int, *targets: str) -> Calm:
    """Copy the project, set a long training without ONNX, and run it twice, undisturbed."""
    project = copy_project(folder / "project")
    params = project / "params.yaml"
    text = params.read_text().replace("epochs: 200 ", f"epochs: {num_epochs} ")
    params.write_text(text.replace("onnx: true ", "onnx: false "))
    (project / "dvc.lock").unlink()
    arguments = (sys.executable, "-m", "dvc", "repro", *targets)
    runs, seconds = [], 0.0
    for name in ("first", "calm"):
        copy = shutil.copytree(project, folder / name)
        start = time.monotonic()
        subprocess.run(arguments, cwd=copy, env=environment(), check=True, capture_output=True)
        seconds = time.monotonic() - start
        runs.append(outputs(copy))
    assert runs[0] == runs[1]
    return Calm(project, arguments, runs[0], seconds)


def environment() -> dict[str, str]:
    """Return this environment, with its programs first and one thread."""
    inherited = {
        name: value for name, value in os.environ.items() if name[:4] not in {"DVC_", "GIT_"}
    }
    path = f"{Path(sys.executable).parent}:{inherited['PATH']}"
    return inherited | {"PATH": path, "OMP_NUM_THREADS": "1"}


def outputs(folder: Path) -> dict[str, bytes]:
    """Read all files that the stages write, leftovers included, and dvc.lock."""
    files = {
        f"{name}/{path}": content
        for name in ("data", "models", "metrics", "dvc.lock", ".resume")
        for path, content in contents(folder / name).items()
    }
    return {path: content for path, content in files.items() if not path.startswith("data/raw")}


def kill_and_run_again(
    calm: Calm, folder: Path, seed: int, signals: Sequence[signal.Signals]
) -> Kill:
    """Disturb a run, then run again undisturbed.

    Raises:
        AssertionError: If the second run fails, or if a byte differs from the calm run.
    """
    generator = random.Random(seed)  # noqa: S311 (when to kill whom)
    signum, target = generator.choice(signals), generator.choice(TARGETS)
    log = folder.with_name(f"{folder.name}.log")
    is_disturbed = False
    while not is_disturbed:  # a run may end before its instant
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(calm.project, folder)
        with log.open("w") as file:
            process = subprocess.Popen(
                calm.arguments, cwd=folder, env=environment(), stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
        time.sleep(generator.uniform(0, calm.seconds))
        is_disturbed = send(process, signum, target)
        process.wait(MAX_SECONDS)
    stages = re.findall(r"Running stage '(\w+)'", log.read_text())
    stage = stages[-1] if stages else "none yet"
    subprocess.run([sys.executable, ".ci/lock.py"], cwd=folder, check=True)  # as `make run` does
    again = subprocess.run(
        calm.arguments, cwd=folder, env=environment(), check=False, capture_output=True, text=True,
        timeout=MAX_SECONDS,
    )  # fmt: skip
    printed = log.read_text() + again.stdout + again.stderr
    case = f"seed {seed}: {signum.name} to {target} in {stage}\n{printed}"
    assert again.returncode == 0, case
    assert "Traceback" not in again.stderr, case
    written = outputs(folder)
    differing = sorted(
        path for path in written | calm.outputs if written.get(path) != calm.outputs.get(path)
    )
    assert not differing, f"{differing}\n{case}"
    return Kill(signum.name, target, stage, "resumed at" in again.stdout)


def send(process: subprocess.Popen[bytes], signum: signal.Signals, target: str) -> bool:
    """Signal DVC, its stage, or the whole group; return False if none of them runs."""
    try:
        if process.poll() is not None:
            return False
        if target == "the whole group":
            os.killpg(process.pid, signum)
            return True
        if target == "dvc alone":
            process.send_signal(signum)
            return True
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signum)
        return bool(children)
    except (ProcessLookupError, FileNotFoundError):
        return False


def main() -> None:
    num_runs, seed = int(sys.argv[1]), int([*sys.argv, "1"][3])
    signals = [signal.Signals[name] for name in sys.argv[2].split(",")]
    # In the background of a script, a shell lets this process ignore SIGINT, and so would each run.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(NUM_PROCESSES) as pool:
        calm = calm_run(Path(name), EPOCHS)
        print(
            f"a calm run: {calm.seconds:.1f} s; seeds {seed} to {seed + num_runs - 1}", flush=True
        )

        def run(number: int) -> Kill | None:
            folder = Path(name, str(number))
            try:
                return kill_and_run_again(calm, folder, number, signals)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                print(f"FAILED: {error}", flush=True)
                return None
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        kills = [*pool.map(run, range(seed, seed + num_runs))]
    succeeded = [kill for kill in kills if kill]
    for title, column in zip(
        ("signal", "target", "killed in", "resumed"), zip(*succeeded, strict=True), strict=True
    ):
        counts = sorted(Counter(map(str, column)).items())
        print(f"{title}: " + ", ".join(f"{value} {count}" for value, count in counts))
    seconds = time.monotonic() - start
    print(f"{len(succeeded)} of {num_runs} ended with the same bytes, in {seconds:.0f} s")
    sys.exit(len(succeeded) < num_runs)


if __name__ == "__main__":
    main()

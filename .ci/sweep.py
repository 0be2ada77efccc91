"""Queue experiments, let several workers run them, wait, and fail if one of them failed.

Usage: python .ci/sweep.py WORKERS 'train.lr=choice(0.01,0.03) train.seed=choice(1,2)'
"""

import re
import signal
import subprocess
import sys
import time

from tqdm import tqdm

PATIENCE_SECONDS = 60  # workers need some seconds to start, and may be too busy to answer

# What `dvc exp run --queue` prints: the values, if there are choices, and an experiment's name.
QUEUED = r"Queueing with overrides '\{'params\.yaml': \[(.*)\]\}'\.\nQueued experiment '(\S+)'"
CHOICE = r"(?:[^\s([]|\([^)]*\)|\[[^\]]*\])+"  # a word; spaces only inside brackets


def main() -> None:
    workers, sweep = sys.argv[1:] if len(sys.argv) == 3 else ("", "")
    choices = re.findall(CHOICE, sweep)
    if not (re.fullmatch("[1-9][0-9]?", workers) and choices):
        sys.exit(
            "sweep: give 1 to 99 workers and what to try, as in: make sweep WORKERS=2"
            f" SWEEP='train.lr=choice(0.1,0.3)'. Got WORKERS={workers} SWEEP='{sweep}'."
        )
    if output("git", "rev-parse", "--is-shallow-repository").strip() == "true":
        sys.exit(
            "sweep: this is a shallow clone, in which DVC loses the results of experiments. Run"
            " `git fetch --unshallow`, then sweep again."
        )
    try:
        outcomes = run(workers, choices)
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nsweep: no longer waiting. Experiments that are queued go on, or wait for the next"
            " sweep. `dvc queue status` lists them, and `make compare` compares those that have"
            " ended. To end all: `dvc queue remove --queued`, then `dvc queue stop --kill`.\n"
        )
        sys.exit(128 + signal.SIGINT)
    unsuccessful = sorted(task for task, state in outcomes.items() if state != "Success")
    for task in unsuccessful:
        left = "" if outcomes[task] == "Failed" else ", and no worker is left to run it"
        print(f"\nsweep: experiment {task}: {outcomes[task]}{left}", flush=True)
        if not left:
            subprocess.run([sys.executable, "-m", "dvc", "queue", "logs", task], check=False)
    if unsuccessful:
        sys.exit(
            f"sweep: {len(unsuccessful)} of {len(outcomes)} experiments did not succeed; see their"
            " logs above. To resume trainings that were stopped, run the same sweep again."
            " `dvc queue remove --failed` forgets those that failed."
        )


def run(workers: str, choices: list[str]) -> dict[str, str]:
    """Queue the experiments, start the workers, and return the last state of each experiment."""
    before = states(dvc("queue", "status"))
    words = [word for choice in choices for word in ("--set-param", choice)]
    queued = dvc("exp", "run", "--queue", *words)
    values = {name: text.replace("'", "") for text, name in re.findall(QUEUED, queued)}
    after = states(dvc("queue", "status"))
    added = {
        task: values.get(after[task][0], " ".join(choices)) for task in after.keys() - before.keys()
    }
    start = [sys.executable, "-m", "dvc", "queue", "start", "--jobs", workers]
    nowhere = subprocess.DEVNULL  # the workers keep their output open
    subprocess.run(start, check=True, stdout=nowhere, stderr=nowhere)
    return wait(added)


def wait(tasks: dict[str, str]) -> dict[str, str]:
    """Return the states of the tasks once all have ended, or once no worker is left.

    Args:
        tasks: The number of each task, and the values that it tries.
    """
    last_worker = time.monotonic()
    with tqdm(desc="sweep: experiments", total=len(tasks)) as bar:
        while True:
            status = dvc("queue", "status")
            current = {task: state for task, (_, state) in states(status).items() if task in tasks}
            running = [tasks[task] for task, state in current.items() if state == "Running"]
            bar.n = sum(state in {"Success", "Failed"} for state in current.values())
            bar.set_postfix_str(f"running: {' | '.join(running) or 'nothing'}")  # draws the bar
            if "Worker status: 0 active, 0 idle" not in status:
                last_worker = time.monotonic()
            if bar.n == len(tasks) or time.monotonic() - last_worker > PATIENCE_SECONDS:
                return current
            time.sleep(1)


def states(status: str) -> dict[str, tuple[str, str]]:
    """Map the number of each task to its name, and to Queued, Running, Success or Failed."""
    found = re.findall(r"^([0-9a-f]{7}) +(\S+) .* (\w+) *$", status, re.MULTILINE)
    return {task: (name, state) for task, name, state in found}


def dvc(*arguments: str) -> str:
    """Return what a DVC command prints; if it fails, exit with its error."""
    return output(sys.executable, "-m", "dvc", *arguments)


def output(*command: str) -> str:
    """Return what a command prints; if it fails, exit with its error."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stderr.strip())
    return result.stdout


if __name__ == "__main__":
    main()

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

CHOICE = r"(?:[^\s([]|\([^)]*\)|\[[^\]]*\])+"  # words, with what stands in brackets


def main() -> None:
    workers, sweep = sys.argv[1:] if len(sys.argv) == 3 else ("", "")
    choices = re.findall(CHOICE, sweep)
    if not (re.fullmatch("[1-9][0-9]?", workers) and choices):
        sys.exit(
            "sweep: give 1 to 99 workers, and what to try: make sweep WORKERS=2"
            f" SWEEP='train.lr=choice(0.1,0.3)'. Got WORKERS={workers} SWEEP='{sweep}'."
        )
    try:
        ends = run(workers, choices)
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nsweep: what is queued by now goes on unattended, or waits for the next sweep."
            " `dvc queue status` lists it, `make compare` compares what has ended,"
            " `dvc queue remove --queued` and then `dvc queue stop --kill` end all.\n"
        )
        sys.exit(128 + signal.SIGINT)
    unsuccessful = sorted(task for task, state in ends.items() if state != "Success")
    for task in unsuccessful:
        left = "" if ends[task] == "Failed" else ", and no worker is left to run it"
        print(f"\nsweep: experiment {task}: {ends[task]}{left}", flush=True)
        if not left:
            subprocess.run([sys.executable, "-m", "dvc", "queue", "logs", task], check=False)
    if unsuccessful:
        sys.exit(
            f"sweep: {len(unsuccessful)} of {len(ends)} experiments did not succeed; see their"
            " logs above. The same sweep again goes on where a training was stopped; `dvc queue"
            " remove --failed` forgets those that failed."
        )


def run(workers: str, choices: list[str]) -> dict[str, str]:
    """Queue the experiments, start the workers, and wait for the states in which all end."""
    before = states(dvc("queue", "status"))
    dvc("exp", "run", "--queue", *(word for choice in choices for word in ("--set-param", choice)))
    added = states(dvc("queue", "status")).keys() - before.keys()
    start = [sys.executable, "-m", "dvc", "queue", "start", "--jobs", workers]
    subprocess.run(
        start, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # which the workers keep
    return wait(added)


def wait(tasks: set[str]) -> dict[str, str]:
    """The states of the tasks once all have ended, or once no worker is left to run them."""
    last_worker = time.monotonic()
    with tqdm(desc="sweep: experiments", total=len(tasks)) as bar:
        while True:
            status = dvc("queue", "status")
            found = {task: state for task, state in states(status).items() if task in tasks}
            bar.update(sum(state in {"Success", "Failed"} for state in found.values()) - bar.n)
            if "Worker status: 0 active, 0 idle" not in status:
                last_worker = time.monotonic()
            if bar.n == len(tasks) or time.monotonic() - last_worker > PATIENCE_SECONDS:
                return found
            time.sleep(1)


def states(status: str) -> dict[str, str]:
    """Queued, Running, Success or Failed, by the number of the task."""
    return dict(re.findall(r"^([0-9a-f]{7}) .* (\w+) *$", status, re.MULTILINE))


def dvc(*words: str) -> str:
    """What a DVC command prints; this program ends with the command's error."""
    end = subprocess.run(
        [sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False
    )
    if end.returncode:
        sys.exit(end.stderr.strip())
    return end.stdout


if __name__ == "__main__":
    main()

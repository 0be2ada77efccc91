"""Measure the training on several ranks and on three hosts: time, bytes sent, and lost hosts.

The hosts are namespaces on this machine and share its cores; each has one thread. Run it in the
project's folder: python tests/benchmarks/hosts.py
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.training import JOBS as TRAINING_JOBS
from tests.benchmarks.training import Job, ours, processor
from tests.conftest import command, copy_project, user_environment
from tests.slow.hosts import Host, by_number, start, three_hosts

RUNS = 5
RANKS = {  # ranks, threads of each
    "1 rank, 1 thread": (1, 1), "1 rank, 2 threads": (1, 2), "2 ranks": (2, 1),
    "3 ranks": (3, 1), "4 ranks": (4, 1),
}  # fmt: skip
JOBS = {
    **{name: TRAINING_JOBS[name] for name in ("10⁷ × 1, line", "10⁶ × 10, 64-64")},
    "10⁶ × 10, line, batch 65,536": Job(1_000_000, 10, (), 65_536, 1),
}
LARGER_JOBS = {
    "2·10⁷ × 1, line": Job(20_000_000, 1, (), None, 5),
    "4·10⁷ × 1, line": Job(40_000_000, 1, (), None, 5),
    "4·10⁶ × 10, 64-64": Job(4_000_000, 10, (64, 64), None, 1),
}
ALL_JOBS = JOBS | LARGER_JOBS
DELAYS = (0, 0.001, 0.02)  # seconds, one way
LONG = {"rows: 1000 ": "rows: 1000000 ", " epochs: 200": " epochs: 1000000"}


def work(name: str) -> None:
    """Be one of the ranks; rank 0 prints milliseconds and sent bytes of an epoch."""
    from stages.training.ranks import join_ranks

    job = ALL_JOBS[name]
    with join_ranks() as ranks:
        epochs = ours(job, "portable", ranks)
        epochs(2)
        seconds, before = [], sent_bytes()
        for _ in range(RUNS):
            begin = time.perf_counter()
            epochs(job.epochs)
            seconds.append((time.perf_counter() - begin) / job.epochs)
        if ranks.rank == 0:
            print(1000 * median(seconds), (sent_bytes() - before) / RUNS / job.epochs)


def sent_bytes() -> int:
    """What this host has sent, in all; 0 on the machine itself, whose counter is not ours."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    [counts] = [line.split() for line in lines if "eth0:" in line] or [["0"] * 10]
    return int(counts[9])


def on_this_machine(name: str, num_ranks: int, num_threads: int) -> float:
    words = ["--standalone", f"--nproc-per-node={num_ranks}", __file__, name]
    environment = user_environment() | {"OMP_NUM_THREADS": str(num_threads)}
    result = subprocess.run(
        ["torchrun", *words], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(result.stdout.splitlines()[-1].split()[0])


def on_hosts(hosts: list[Host], name: str) -> tuple[float, float]:
    processes = [
        host.start(
            "torchrun", *by_number(len(hosts), number).split(), __file__, name, OMP_NUM_THREADS="1"
        )
        for number, host in enumerate(hosts)
    ]
    printed = [process.communicate() for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(printed[0][1])
    milliseconds, num_bytes = map(float, printed[0][0].splitlines()[-1].split())
    return milliseconds, num_bytes


def lose(folder: Path, project: Path, event: str) -> tuple[float, float]:
    """Lose the third host; return seconds until the others end, and until two have resumed."""
    with three_hosts(folder, project) as hosts:
        processes = start(hosts)
        while not any((hosts[0].folder / ".resume").glob("*.pt")):
            time.sleep(0.01)
        begin = time.perf_counter()
        getattr(hosts[2], event)()
        for process in processes[:2]:
            process.communicate()
        stopped_seconds = time.perf_counter() - begin
        processes[2].communicate()
        begin = time.perf_counter()
        processes = start(hosts[:2])
        while "resumed" not in processes[0].stdout.readline():
            pass
        resumed_seconds = time.perf_counter() - begin
        for host in hosts:
            host.kill()
        for process in processes:
            process.communicate()
    return stopped_seconds, resumed_seconds


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)
    print(f"{len(os.sched_getaffinity(0))} cores of {processor()}, {platform.system()}", end=", ")
    print(f"Python {platform.python_version()}, torch {version('torch')}")
    jobs = [*JOBS][:2]
    print("\n| ms per epoch |", " | ".join(jobs), "|\n|---|---|---|")
    for label, (num_ranks, num_threads) in RANKS.items():
        times = [on_this_machine(name, num_ranks, num_threads) for name in jobs]
        print(f"| {label} |", " | ".join(f"{milliseconds:.3g}" for milliseconds in times), "|")

    print("\n| three hosts | delay, ms | ms per epoch | bytes sent per epoch and host |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        project = copy_project(Path(name, "project"))
        for delay_seconds in DELAYS:
            with (
                tempfile.TemporaryDirectory() as folder,
                three_hosts(Path(folder), project, delay_seconds) as hosts,
            ):
                for job in JOBS if delay_seconds else ALL_JOBS:
                    milliseconds, num_bytes = on_hosts(hosts, job)
                    print(
                        f"| {job} | {1000 * delay_seconds:g} | {milliseconds:.3g}"
                        f" | {num_bytes:,.0f} |"
                    )

        path = project / "params.yaml"
        text = path.read_text()
        for old, new in LONG.items():
            text = text.replace(old, new)
        path.write_text(text)
        command(project, "dvc", "repro", "prepare")
        print("\n| the third host is | s until the others end | s until two have resumed |")
        print("|---|---|---|")
        for label, event in (("killed", "kill"), ("cut off", "cut_off")):
            with tempfile.TemporaryDirectory() as folder:
                stopped, resumed = lose(Path(folder), project, event)
            print(f"| {label} | {stopped:.1f} | {resumed:.1f} |")


if __name__ == "__main__":
    work(sys.argv[1]) if len(sys.argv) > 1 else main()

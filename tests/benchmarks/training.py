"""Measure the time of an epoch and the peak memory of our training loop and of its peers.

Every contestant is a process of its own with its own copy of the table. They take turns: a change
of the machine's speed affects all of them. Run it in the project's folder; it needs
requirements-bench.txt and a C++ compiler: python tests/benchmarks/training.py [JOB …]
With `--device cuda`, ours and the textbook loop run on that accelerator, with its own jobs.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

RUNS = 5
LR = 0.01
ROWS_AT_ONCE = 2**16
PACKAGES = ("torch", "numpy", "jax", "scikit-learn")

Epochs = Callable[[int], object]  # trains for so many epochs


class Job(NamedTuple):
    rows: int
    features: int
    hidden: tuple[int, ...]
    batch_size: int | None
    epochs: int  # of one run, which then takes some tenths of a second
    device: str = "cpu"


JOBS = {
    "10³ × 1, line": Job(1_000, 1, (), None, 1_000),
    "10⁷ × 1, line": Job(10_000_000, 1, (), None, 20),
    "10⁶ × 10, line": Job(1_000_000, 10, (), None, 100),
    "10⁶ × 100, line": Job(1_000_000, 100, (), None, 10),
    "10⁶ × 10, 64-64": Job(1_000_000, 10, (64, 64), None, 2),
    "10⁶ × 10, line, batch 256": Job(1_000_000, 10, (), 256, 1),
}
ACCELERATOR_JOBS = {
    "10³ × 1, line": Job(1_000, 1, (), None, 1_000),
    "10⁷ × 1, line": Job(10_000_000, 1, (), None, 100),
    "10⁸ × 1, line": Job(100_000_000, 1, (), None, 10),
    "10⁶ × 10, 64-64": Job(1_000_000, 10, (64, 64), None, 50),
    "10⁶ × 10, 1024-1024": Job(1_000_000, 10, (1024, 1024), None, 5),
}


def table(job: Job) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(42)
    inputs = generator.standard_normal((job.rows, job.features), dtype=np.float32)
    noise = 0.1 * generator.standard_normal((job.rows, 1), dtype=np.float32)
    return inputs, inputs.sum(axis=1, keepdims=True) + noise


def ours(job: Job, numerics: str, ranks: Any = None) -> Epochs:
    import torch
    import yaml

    from stages import train
    from stages.base.params import TrainParams
    from stages.model.device import choose_device, set_numerics
    from stages.model.model import Model
    from stages.rows.split import Split, SplitWriter
    from stages.training.batches import load_rows
    from stages.training.checkpoint import Checkpoint
    from stages.training.ranks import Ranks

    ranks = ranks or Ranks()
    set_numerics(numerics)
    names = [f"x{i}" for i in range(job.features)]
    settings = yaml.safe_load(Path("params.yaml").read_text())["train"] | {
        "hidden": [*job.hidden], "standardize": False, "lr": LR,
        "batch_size": job.batch_size, "numerics": numerics,
    }  # fmt: skip
    device = choose_device(job.device, torch.float32)
    model = Model(names, "y", TrainParams.model_validate(settings), torch.float32).to(device)
    inputs, targets = table(job)
    paths = []
    with tempfile.TemporaryDirectory() as folder:
        for num_rows in (job.rows, 0):
            paths.append(Path(folder, f"{num_rows}.parquet"))
            writer = SplitWriter(paths[-1], [*names, "y"], "float32")
            for start in range(0, num_rows, ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                writer.write(np.column_stack([inputs[rows], targets[rows]]))
            writer.close()
        del inputs, targets  # the peak of memory is to be that of the training
        splits = [load_rows(Split(path), model, Path(folder)) for path in paths]

    def epochs(count: int) -> None:
        params = TrainParams.model_validate(settings | {"epochs": count})
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DVC_ROOT"] = folder
            with Checkpoint(params, device, [], ranks) as checkpoint:
                train.train(params, model, *splits, ranks, checkpoint)

    return epochs


def textbook(job: Job, *, is_compiled: bool = False, has_loader: bool = False) -> Epochs:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    inputs, targets = (torch.from_numpy(rows).to(job.device) for rows in table(job))
    widths = [job.features, *job.hidden]
    hidden = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(widths[-1], 1)).to(job.device)
    mode = "default" if job.device == "cpu" else "reduce-overhead"  # which uses CUDA graphs
    predict = torch.compile(model, mode=mode) if is_compiled else model
    loss_function = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=job.batch_size, shuffle=True)

    def batches() -> Iterator[list[torch.Tensor]]:
        if has_loader:
            yield from loader
        elif job.batch_size is None:
            yield [inputs, targets]
        else:
            order = torch.randperm(job.rows, device=job.device)
            shuffled = inputs[order], targets[order]
            yield from zip(*(rows.split(job.batch_size) for rows in shuffled), strict=True)

    def epochs(count: int) -> None:
        for _ in range(count):
            total_loss = 0.0
            for x, y in batches():
                predictions = predict(x)
                loss = loss_function(predictions, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total_loss += loss.item() * len(x)

    return epochs


def jax_jit(job: Job) -> Epochs:
    import jax
    import jax.numpy as jnp

    inputs, targets = map(jnp.asarray, table(job))
    generator = np.random.default_rng(1)
    weights = [
        (jnp.asarray(generator.normal(0, a**-0.5, (a, b)), jnp.float32), jnp.zeros(b, jnp.float32))
        for a, b in pairwise([job.features, *job.hidden, 1])
    ]

    def loss_of(weights, x, y):
        *hidden, (weight, bias) = weights
        for hidden_weight, hidden_bias in hidden:
            x = jax.nn.relu(x @ hidden_weight + hidden_bias)
        return jnp.mean((x @ weight + bias - y) ** 2)

    @jax.jit
    def step(weights, x, y):
        loss, gradient = jax.value_and_grad(loss_of)(weights, x, y)
        return loss, jax.tree.map(lambda w, g: w - LR * g, weights, gradient)

    def epochs(count: int) -> None:
        nonlocal weights
        for epoch in range(count):
            x, y, size = inputs, targets, job.batch_size or job.rows
            if job.batch_size:
                order = np.random.default_rng(epoch).permutation(job.rows)
                x, y = inputs[order], targets[order]
            for start in range(0, job.rows, size):
                batch = (
                    (x[start : start + size], y[start : start + size])
                    if size < job.rows
                    else (x, y)
                )
                _, weights = step(weights, *batch)
        jax.block_until_ready(weights)

    return epochs


def sgd_regressor(job: Job) -> Epochs:
    """An epoch is a pass of single-row steps, which is more work than a full-batch step."""
    from sklearn.linear_model import SGDRegressor

    inputs, targets = table(job)
    return lambda count: SGDRegressor(max_iter=count, tol=None, penalty=None).fit(
        inputs, targets[:, 0]
    )


def linear_regression(job: Job) -> Epochs:
    """A whole fit counts as an epoch."""
    from sklearn.linear_model import LinearRegression

    inputs, targets = table(job)
    return lambda count: [LinearRegression().fit(inputs, targets) for _ in range(count)]


def reading(job: Job) -> Epochs:
    """Only read the table from memory, in all threads: the physical limit."""
    import torch

    from stages.base.threads import in_order

    torch.set_num_threads(1)
    flat = [torch.from_numpy(rows).view(torch.int32).reshape(-1) for rows in table(job)]
    blocks = [block for rows in flat for block in rows.split(2**20)]
    return lambda count: [list(in_order(torch.max, blocks)) for _ in range(count)]


CONTESTANTS: dict[str, Callable[[Job], Epochs]] = {
    "ours, native": lambda job: ours(job, "native"),
    "ours, portable": lambda job: ours(job, "portable"),
    "textbook loop": textbook,
    "textbook loop, torch.compile": lambda job: textbook(job, is_compiled=True),
    "textbook loop, DataLoader": lambda job: textbook(job, has_loader=True),
    "JAX jit": jax_jit,
    "SGDRegressor": sgd_regressor,
    "LinearRegression, whole fit": linear_regression,
    "reading the table": reading,
}
SLOW = {"SGDRegressor", "LinearRegression, whole fit", "textbook loop, DataLoader"}


def takes_part(name: str, job: Job) -> bool:
    if job.device != "cpu":
        return name in {"ours, native", "textbook loop", "textbook loop, torch.compile"}
    if name == "textbook loop, DataLoader":
        return job.batch_size is not None
    if name in {"SGDRegressor", "LinearRegression, whole fit"}:
        return not job.hidden
    if name == "reading the table":
        return job.batch_size is None and job.rows > 1_000
    return True


def contest(job: Job, name: str) -> None:
    """Run a contestant: one run for every line of standard input; then print the peak memory."""
    epochs = CONTESTANTS[name](job)
    num_epochs = 1 if name in SLOW and job.rows > 1_000 else job.epochs
    answers = sys.stdout
    with redirect_stdout(sys.stderr):  # progress may be printed there
        epochs(min(num_epochs, 2))
        print("ready", file=answers, flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            epochs(num_epochs)
            print(1e3 * (time.perf_counter() - start) / num_epochs, file=answers, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


def measure(
    job: str, num_threads: int, names: list[str], device: str
) -> dict[str, tuple[list[float], float]]:
    """Return the milliseconds per epoch of every run and the peak MiB, by contestant."""
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))[:num_threads]))
    arguments = ["taskset", "--cpu-list", cpus, sys.executable, __file__, job]
    arguments += ["--device", device, "--contest"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads), "PYTHONPATH": "."}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    processes = {
        name: subprocess.Popen([*arguments, name], env=environment, **pipes) for name in names
    }
    for name, process in processes.items():
        if process.stdout.readline() != "ready\n":
            sys.exit(f"{name} did not start; see above.")
    times = {name: [] for name in names}
    for _ in range(RUNS):
        for name, process in processes.items():
            process.stdin.write("\n")
            times[name].append(float(process.stdout.readline()))
    return {name: (times[name], float(p.communicate()[0])) for name, p in processes.items()}


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    return (
        f"{fields['model name'].strip()} (family {fields['cpu family']}, model {fields['model']})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=str([*JOBS, *ACCELERATOR_JOBS]))
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps or xpu (default: cpu)")
    parser.add_argument("--contest", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    jobs = JOBS if arguments.device == "cpu" else ACCELERATOR_JOBS
    jobs = {name: job._replace(device=arguments.device) for name, job in jobs.items()}
    if arguments.contest:
        contest(jobs[arguments.jobs[0]], arguments.contest)
        return
    num_cpus = len(os.sched_getaffinity(0))
    print(f"{num_cpus} cores of {processor()}, {platform.system()}, Python", end=" ")
    print(platform.python_version(), *(f"{name} {version(name)}" for name in PACKAGES), sep=", ")
    all_counts = [count for count in (1, 2, 4) if count <= num_cpus]
    for name in arguments.jobs or jobs:
        names = [contestant for contestant in CONTESTANTS if takes_part(contestant, jobs[name])]
        for num_threads in all_counts if arguments.device == "cpu" else [num_cpus]:
            results = measure(name, num_threads, names, arguments.device)
            base = results["ours, native"][0]
            print(
                f"\n| {name}, threads: {num_threads} | ms per epoch | / ours, native | peak MiB |"
            )
            print("|---|---|---|---|")
            for contestant, (times, peak) in results.items():
                ratio = median(one / other for one, other in zip(times, base, strict=True))
                print(
                    f"| {contestant} | {median(times):.3g} | {ratio:.2f} | {peak:.0f} |", flush=True
                )


if __name__ == "__main__":
    main()

"""Train on a table of 4 GiB with all memory and in a control group of 1 GiB, in turns.

Needs root, and control groups of version 1 or 2. Run it in the project's folder:
python tests/benchmarks/capped.py [GIB]
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from stages.base.files import PREPARED, write_json
from stages.prepare import statistics
from stages.rows.split import SPLITS, Split, SplitWriter, block_rows

GIB = 2**30
COLUMNS = [*(f"x{i}" for i in range(9)), "y"]
JOBS = ((None, [], 21), (4096, [], 3), (None, [8], 3))  # batch size, hidden, epochs
RUNS = 2
MEMORY = Path("/sys/fs/cgroup/memory")  # of version 1
GROUP = (MEMORY if MEMORY.exists() else MEMORY.parent) / "reproducible-pytorch-workflow"
LIMIT, PEAK = (
    ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
    if MEMORY.exists()
    else ("memory.max", "memory.peak")
)


def write_table(num_bytes: int) -> None:
    """Write a training table of ``num_bytes``, and one block each for validation and test."""
    size = block_rows(len(COLUMNS))
    generator = np.random.default_rng(0)
    sizes = (num_bytes // (4 * len(COLUMNS)), size, size)
    PREPARED.mkdir(parents=True)
    for name, num_rows in zip(SPLITS, sizes, strict=True):
        writer = SplitWriter(PREPARED / f"{name}.parquet", COLUMNS, "float32")
        for start in range(0, num_rows, size):
            rows = generator.random((min(size, num_rows - start), len(COLUMNS)), np.float32)
            rows[:, -1] += rows[:, :-1].sum(axis=1)
            writer.write(rows)
        writer.close()
    training = Split(PREPARED / "train.parquet")
    described = statistics(training, sizes, {}, fill={}, filled={})
    write_json(PREPARED / "statistics.json", described.model_dump())


def seconds(epochs: int, batch_size: int | None, hidden: list[int], *, is_capped: bool) -> float:
    def enter() -> None:
        (GROUP / "cgroup.procs").write_text(str(os.getpid()))

    path = Path("params.yaml")
    text = path.read_text()
    for name, value in {"epochs": epochs, "batch_size": batch_size or "", "hidden": hidden}.items():
        text = re.sub(rf"(?m)^  {name}:[^#]*#", f"  {name}: {value}  #", text)
    path.write_text(text)
    start = time.perf_counter()
    arguments = [sys.executable, "-m", "stages.train"]
    subprocess.run(arguments, check=True, preexec_fn=enter if is_capped else None)
    return time.perf_counter() - start


def main() -> None:
    num_bytes = int(sys.argv[1] if len(sys.argv) > 1 else 4) * GIB
    GROUP.mkdir(exist_ok=True)
    (GROUP / LIMIT).write_text(str(GIB))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", ".", folder], check=True)
        os.chdir(folder)
        write_table(num_bytes)
        num_rows = Split(PREPARED / "train.parquet").num_rows
        seconds(1, None, [], is_capped=False)  # reads the file once before
        for batch_size, hidden, epochs in JOBS:
            rates: dict[bool, list[float]] = {False: [], True: []}
            for is_capped, measured in RUNS * [*rates.items()]:
                one, more = (
                    seconds(count, batch_size, hidden, is_capped=is_capped) for count in (1, epochs)
                )
                measured.append((epochs - 1) * num_rows / (more - one))
                digest = sha256(Path("models/trained/weights.safetensors").read_bytes()).hexdigest()
                print(f"capped {is_capped}: {measured[-1]:,.0f} rows/s, {digest[:8]}", flush=True)
            ratio = median(b / a for a, b in zip(*rates.values(), strict=True))
            print(f"{hidden}, batches of {batch_size}: capped / uncapped {ratio:.2f}", flush=True)
    print(f"peak of the group, with file pages that can be dropped: {(GROUP / PEAK).read_text()}")
    GROUP.rmdir()


if __name__ == "__main__":
    main()

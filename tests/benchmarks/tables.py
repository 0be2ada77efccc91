"""Measure time and peak memory of each stage on large tables, beside plain scripts, in turns.

ONNX is off: its export takes equally long for any table, and the scripts do not write it.
Run it in the project's folder: python tests/benchmarks/tables.py [SIZE …] [--only-ours]
[--stages prepare,train-batches] [--figure FILE.svg]; sizes are 1e5x2 to 1e8x2, and 1e6x101.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from matplotlib.figure import Figure

STAGES = ("prepare", "train", "evaluate", "save")
EPOCHS = 20
BATCH_SIZE = 4096
MAX_NUMBERS = 10**6  # generated at once


# Runs in a small process, because the memory of the parent counts in the peak of a process.
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


class Size(NamedTuple):
    rows: int
    features: int
    runs: int  # measured pairs, after one to warm up if there are several


SIZES = {
    "1e5x2": Size(10**5, 1, 3),
    "1e6x2": Size(10**6, 1, 3),
    "1e7x2": Size(10**7, 1, 3),
    "1e8x2": Size(10**8, 1, 1),
    "1e6x101": Size(10**6, 100, 1),
}


class Point(NamedTuple):
    label: str
    rows: int
    seconds: float
    peak_mib: float


class Cost(NamedTuple):
    seconds: float
    peak_mib: float


def generate(size: Size, folder: Path) -> None:
    """Write a noisy linear table with six decimals, as CSV and as Parquet of float32."""
    names = ["x"] if size.features == 1 else [f"x{i}" for i in range(size.features)]
    csv_schema = pa.schema([(name, pa.float64()) for name in [*names, "y"]])
    schema = pa.schema([(name, pa.float32()) for name in [*names, "y"]])
    generator = np.random.default_rng(0)
    options = pa.csv.WriteOptions(quoting_header="none")
    num_at_once = max(1, MAX_NUMBERS // size.features)
    with (
        pa.csv.CSVWriter(folder / "t.csv", csv_schema, write_options=options) as text,
        pq.ParquetWriter(folder / "t.parquet", schema) as parquet,
    ):
        for start in range(0, size.rows, num_at_once):
            num_rows = min(num_at_once, size.rows - start)
            inputs = generator.random((num_rows, size.features))
            noise = 0.05 * generator.standard_normal(num_rows)
            cells = np.column_stack([inputs, 0.7 * inputs.sum(axis=1) + 0.3 + noise]).round(6)
            batch = pa.table(list(np.asfortranarray(cells).T), schema=csv_schema)
            text.write_table(batch)
            parquet.write_table(batch.cast(schema))


def cost(folder: Path, command: list[str]) -> Cost:
    """Measure a command, which runs in ``folder``."""
    measured = [sys.executable, "-I", "-S", "-c", MEASURE, *command]
    result = subprocess.run(measured, cwd=folder, check=True, stdout=subprocess.PIPE)
    seconds, peak_kib = map(float, result.stdout.split())
    return Cost(seconds, peak_kib / 1024)


def configure(folder: Path, source: str, batch_size: int | None) -> None:
    path = folder / "params.yaml"
    text = path.read_text()
    values = {"source": source, "epochs": EPOCHS, "batch_size": batch_size or "", "onnx": "false"}
    for name, value in values.items():
        text = re.sub(rf"(?m)^  {name}:[^#]*#", f"  {name}: {value}  #", text)
    path.write_text(text)


def one_run(
    ours: Path, plain: Path, source: str, stages: Sequence[str], *, only_ours: bool
) -> dict[str, dict[str, Cost]]:
    """Run every stage of ours and of the plain scripts once, in turns."""
    table = str(ours / "data/raw" / source)
    costs: dict[str, dict[str, Cost]] = {}
    for stage in stages:
        module, _, has_batches = stage.partition("-")
        configure(ours, source, BATCH_SIZE if has_batches else None)
        arguments = {"prepare": [table], "train": [str(EPOCHS)]}.get(module, [])
        arguments += [str(BATCH_SIZE)] if has_batches else []
        costs[stage] = {"ours": cost(ours, [sys.executable, "-m", f"stages.{module}"])}
        if not only_ours:
            costs[stage]["plain"] = cost(plain, [sys.executable, f"{module}.py", *arguments])
    return costs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", default=[*SIZES])
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--stages", default="prepare,train-batches,train,evaluate,save")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    stages = arguments.stages.split(",")
    points: list[Point] = []
    for name in arguments.sizes:
        size = SIZES[name]
        with tempfile.TemporaryDirectory() as folder:
            ours, plain = Path(folder, "ours"), Path(folder, "plain")
            subprocess.run(["git", "clone", "-q", ".", str(ours)], check=True)
            subprocess.run(
                ["cp", "-r", str(Path(__file__).with_name("plain")), str(plain)], check=True
            )
            generate(size, ours / "data/raw")
            for suffix in ("csv", "parquet"):
                runs = [
                    one_run(ours, plain, f"t.{suffix}", stages, only_ours=arguments.only_ours)
                    for _ in range(size.runs + (size.runs > 1))
                ][size.runs > 1 :]
                points += report(size, suffix, runs)
    if arguments.figure:
        draw(points, arguments.figure)


def draw(points: list[Point], path: Path) -> None:
    """Draw the time of all four stages, and their largest peak memory, against rows."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for label in sorted({point.label for point in points}):
        rows, seconds, peaks = zip(*(p[1:] for p in points if p.label == label), strict=True)
        style = {
            "color": "C0" if "ours" in label else "C1",
            "linestyle": "--" if "parquet" in label else "-",
        }
        panels[0].plot(rows, seconds, marker="o", label=label, **style)
        panels[1].plot(rows, peaks, marker="o", label=label, **style)
    panels[0].set(xscale="log", yscale="log", xlabel="rows", ylabel="seconds")
    panels[1].set(xscale="log", xlabel="rows", ylabel="peak MiB", ylim=(0, None))
    panels[0].legend()
    figure.savefig(path)


def report(size: Size, suffix: str, runs: list[dict[str, dict[str, Cost]]]) -> list[Point]:
    """Print a table of all stages; return the points of the figure."""
    print(f"\n| {size.rows:,} × {size.features + 1}, {suffix} | s | rows/s | MiB | plain s "
          "| plain MiB | plain / ours, time | memory |\n" + 8 * "|---" + "|")  # fmt: skip
    everyone = [*runs[0]["prepare"]]
    rows = {stage: [stage] for stage in runs[0]}
    if {*STAGES} <= {*rows}:
        rows["all four"] = [*STAGES]
    for stage, summed in rows.items():
        seconds = {
            who: [sum(run[s][who].seconds for s in summed) for run in runs] for who in everyone
        }
        peaks = {who: max(run[s][who].peak_mib for run in runs for s in summed) for who in everyone}
        ours = median(seconds["ours"])
        cells = [stage, f"{ours:.2f}", f"{size.rows / ours:,.0f}", f"{peaks['ours']:.0f}"]
        if "plain" in seconds:
            ratio = median(b / a for a, b in zip(seconds["ours"], seconds["plain"], strict=True))
            cells += [f"{median(seconds['plain']):.2f}", f"{peaks['plain']:.0f}", f"{ratio:.2f}",
                      f"{peaks['plain'] / peaks['ours']:.2f}"]  # fmt: skip
        else:
            cells += 4 * ["—"]
        print("| " + " | ".join(cells) + " |", flush=True)
    return [
        Point(f"{who}, {suffix}", size.rows, median(seconds[who]), peaks[who])
        for who in seconds
        if size.features == 1
    ]


if __name__ == "__main__":
    main()

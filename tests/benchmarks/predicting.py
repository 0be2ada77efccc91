"""Predict for 10⁷ rows, CSV to CSV, beside a plain script with pandas and PyTorch, in turns.

Run it in the project's folder, after `dvc repro`: python tests/benchmarks/predicting.py
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.tables import SIZES, cost, generate

RUNS = 3
PLAIN = """
import sys
import pandas as pd
import torch
from safetensors.torch import load_file
release, table, output = sys.argv[1:]
weights = load_file(f"{release}/model.safetensors")
rows = pd.read_csv(table)
inputs = torch.tensor(rows[["x"]].to_numpy(), dtype=torch.float32)
with torch.inference_mode():
    z_scores = (inputs - weights["input_mean"]) / weights["input_scale"]
    outputs = z_scores @ weights["network.0.weight"].T + weights["network.0.bias"]
    predictions = outputs * weights["target_scale"] + weights["target_mean"]
rows["y_predicted"] = predictions[:, 0].numpy()
rows.to_csv(output, index=False)
"""


def main() -> None:
    size = SIZES["1e7x2"]
    with tempfile.TemporaryDirectory() as folder:
        generate(size, Path(folder))
        table, output = f"{folder}/t.csv", f"{folder}/predictions.csv"
        release = Path("models/release").resolve()
        ours = [sys.executable, "-m", "stages.predict", str(release), table, "--output", output]
        plain = [sys.executable, "-c", PLAIN, str(release), table, output]
        pairs = [(cost(Path(), ours), cost(Path(), plain)) for _ in range(RUNS)]
    for name, costs in zip(("ours", "plain"), zip(*pairs, strict=True), strict=True):
        seconds = median(item.seconds for item in costs)
        peak = max(item.peak_mib for item in costs)
        print(f"{name}: {seconds:.2f} s, {size.rows / seconds:,.0f} rows/s, {peak:.0f} MiB")
    print(f"plain / ours: {median(b.seconds / a.seconds for a, b in pairs):.2f}")


if __name__ == "__main__":
    main()

"""The line, or a table, as most people would split it: CSV files by pandas."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

Path("data").mkdir(exist_ok=True)
if len(sys.argv) > 1:
    read = pd.read_parquet if sys.argv[1].endswith(".parquet") else pd.read_csv
    table = read(sys.argv[1])
else:
    rng = np.random.default_rng(42)
    x = np.arange(1000) / 1000
    table = pd.DataFrame({"x": x, "y": 0.7 * x + 0.3 + 0.05 * rng.standard_normal(1000)})
table = table.sample(frac=1, random_state=42)
num_test, num_validation = len(table) // 5, len(table) // 10
table[num_test + num_validation :].to_csv("data/train.csv", index=False)
table[num_test : num_test + num_validation].to_csv("data/validation.csv", index=False)
table[:num_test].to_csv("data/test.csv", index=False)
print(len(table), "rows")

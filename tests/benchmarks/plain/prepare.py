"""The line as most people would write it: CSV files by pandas."""

from pathlib import Path

import numpy as np
import pandas as pd

Path("data").mkdir(exist_ok=True)
rng = np.random.default_rng(42)
x = np.arange(1000) / 1000
table = pd.DataFrame({"x": x, "y": 0.7 * x + 0.3 + 0.05 * rng.standard_normal(1000)})
table = table.sample(frac=1, random_state=42)
table[:700].to_csv("data/train.csv", index=False)
table[700:800].to_csv("data/validation.csv", index=False)
table[800:].to_csv("data/test.csv", index=False)
print("700 rows to train, 100 to validate, 200 to test")

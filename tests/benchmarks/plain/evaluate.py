"""Scores of the test rows."""

import json
from pathlib import Path

import pandas as pd
import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
cells = torch.tensor(pd.read_csv("data/test.csv").to_numpy(), dtype=torch.float32).to(device)
inputs, targets = cells[:, :-1], cells[:, -1:]
model = nn.Linear(inputs.shape[1], 1).to(device)
model.load_state_dict(torch.load("trained.pt", weights_only=True))
model.eval()
with torch.inference_mode():
    residuals = model(inputs) - targets
    scores = {"rmse": (residuals**2).mean().sqrt().item(), "mae": residuals.abs().mean().item()}
Path("metrics.json").write_text(json.dumps(scores))
print(scores)

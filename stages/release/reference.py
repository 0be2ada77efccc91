"""The model in NumPy alone. The card prints these functions, and the proof runs them."""

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read all tensors of a safetensors file."""
    content = Path(path).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    weights = {}
    for name, tensor in json.loads(content[8:start]).items():
        if name != "__metadata__":
            dtype = {"F32": np.float32, "F64": np.float64}[tensor["dtype"]]
            first = start + tensor["data_offsets"][0]
            numbers = np.frombuffer(content, dtype, prod(tensor["shape"]), first)
            weights[name] = numbers.reshape(tensor["shape"])
    return weights


def predict(weights: dict[str, Any], inputs: Any) -> Any:
    """Predict in the table's units: (rows, features) → (rows, 1)."""
    values = (inputs - weights["input_mean"]) / weights["input_scale"]
    num_layers = sum(name.endswith("weight") for name in weights)
    for layer in range(0, 2 * num_layers, 2):  # ReLU between the layers
        values = np.maximum(values, 0) if layer else values
        values = values @ weights[f"network.{layer}.weight"].T + weights[f"network.{layer}.bias"]
    return values * weights["target_scale"] + weights["target_mean"]

"""README.md of a release: the model card, with programs that need only the release folder.

The card prints `read_weights` and `predict`, the model in NumPy alone; the proof runs them.
"""

import json
from inspect import getsource
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from stages.release.manifest import Manifest
from stages.rows.categories import coefficient_names
from stages.rows.split import SPLITS


def card(manifest: Manifest) -> str:
    """Fill in card.md. Names from the table stand in its text, never in its programs."""
    scores = manifest.scores
    found = {"this model": scores, "least squares": scores["least_squares"]}
    rows = [(name, who, found[who][name]) for name in SPLITS if name in scores for who in found]
    names = [column.name for column in manifest.inputs]
    learned = scores.get("learned", {})
    intercept, *slopes = [learned.get(key) for key in coefficient_names(names)]
    environment = Environment(trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 (no HTML)
    environment.filters |= {"escape": escape, "short": "{:.6g}".format}
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        manifest.model_dump(),
        intercept=intercept,
        slopes=dict(zip(names, slopes, strict=True)),
        score_rows=rows,
        functions=f"{getsource(read_weights)}\n\n{getsource(predict)}",
    )


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


def escape(name: str) -> str:
    """Escape what could end a line, a code span, a table cell or a fence."""
    return "".join(c if c.isprintable() and c not in "`|\\" else f"\\u{{{ord(c):x}}}" for c in name)

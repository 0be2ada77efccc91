"""README.md of a release: the model card for people, with code that needs this folder alone."""

from collections.abc import Iterable
from string import Template
from typing import Any

from stages.release.manifest import ONNX, Manifest, Proof
from stages.rows.categories import columns_of, inputs_of

MAX_SHOWN = 20  # columns, and categories of a column
MAX_FORMULA_INPUTS = 3
MAX_NAME = 60  # characters
SCORES = {"rmse": "RMSE", "mae": "mean absolute error", "max_error": "largest error", "r2": "R²"}

CARD = Template("""\
# A model of $target

Predicts the column $target from $count: $kind, trained on $rows rows.
$formula
![Loss over epochs; data, model and least-squares line; residuals](figure.svg)

## What goes in

One row of numbers, in the units of the training table; $dtype. Its numbers are the `inputs` of
`model.json`, in that order. Outside what the training rows hold the model extrapolates, which no
score below tells anything about.

$columns

Out comes $target; in the training rows it lies from $lowest to $highest.

## How good it is

$scores

Least squares is the best linear model that there is for the training rows, computed exactly.

## Use it

Each of these programs runs in this folder, and predicts for one row: the training rows' means.

### PyTorch

```python
import json
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

model = json.loads(Path("model.json").read_bytes())
weights = load_file("model.safetensors")
layers = []
for width, next_width in pairwise(model["architecture"]["widths"]):
    layers += [nn.Linear(width, next_width, dtype=torch.$dtype), nn.ReLU()]
network = nn.Sequential(*layers[:-1])
network.load_state_dict({name: weights["network." + name] for name in network.state_dict()})


@torch.inference_mode()
def predict(inputs):  # (rows, features) → (rows, 1)
    z_scores = (inputs - weights["input_mean"]) / weights["input_scale"]
    return network(z_scores) * weights["target_scale"] + weights["target_mean"]


inputs = torch.tensor([[column["mean"] for column in model["inputs"]]], dtype=torch.$dtype)
print(predict(inputs).tolist())
```
$onnx
### NumPy

```python
import json
from math import prod
from pathlib import Path

import numpy as np

model = json.loads(Path("model.json").read_bytes())
content = Path("model.safetensors").read_bytes()
start = 8 + int.from_bytes(content[:8], "little")
weights = {}
for name, tensor in json.loads(content[8:start]).items():
    if name != "__metadata__":
        shape, first = tensor["shape"], start + tensor["data_offsets"][0]
        numbers = np.frombuffer(content, np.$dtype, prod(shape), first)
        weights[name] = numbers.reshape(shape)


def predict(inputs):  # (rows, features) → (rows, 1)
    values = (inputs - weights["input_mean"]) / weights["input_scale"]
    num_layers = len(model["architecture"]["widths"]) - 1
    for layer in range(0, 2 * num_layers, 2):  # between them stands ReLU
        values = np.maximum(values, 0) if layer else values
        values = values @ weights[f"network.{layer}.weight"].T + weights[f"network.{layer}.bias"]
    return values * weights["target_scale"] + weights["target_mean"]


inputs = np.array([[column["mean"] for column in model["inputs"]]], np.$dtype)
print(predict(inputs).tolist())
```

## Where it comes from

Trained on $device with PyTorch $torch. `model.json` holds all parameters, all scores, the versions,
and the SHA-256 of the rows and of this folder's models. Before release, $proof.
""")
ONNX_PROGRAM = Template("""
### ONNX Runtime

```python
import json
import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: else it writes files and reports

import numpy as np
import onnxruntime

model = json.loads(Path("model.json").read_bytes())
session = onnxruntime.InferenceSession("model.onnx")
inputs = np.array([[column["mean"] for column in model["inputs"]]], np.$dtype)
print(session.run(["predictions"], {"inputs": inputs})[0].tolist())
```
""")


def card(manifest: Manifest) -> str:
    """The model card; the table's names stand in it as text, and in no program."""
    hidden, dtype = manifest.architecture.hidden, manifest.target.type
    names = columns_of([column.name for column in manifest.inputs], manifest.categories)
    has_onnx = ONNX in manifest.files
    line = "a line" if len(manifest.inputs) == 1 else "a linear model"
    return CARD.substitute(
        target=_code(manifest.target.name),
        count=f"{len(names)} column{'s' * (len(names) != 1)}",
        kind=f"a network of {'-'.join(map(str, hidden))} hidden units" if hidden else line,
        rows=manifest.scores["train"]["rows"],
        formula=_formula(manifest),
        dtype=dtype,
        columns=_columns(manifest, names),
        lowest=f"{manifest.target.minimum:.6g}",
        highest=f"{manifest.target.maximum:.6g}",
        scores=_scores(manifest.scores),
        onnx=ONNX_PROGRAM.substitute(dtype=dtype) if has_onnx else "",
        device="a CPU" if manifest.trained_on == "cpu" else manifest.trained_on,
        torch=manifest.versions["torch"],
        proof=_proof(manifest.proof),
    )


def _formula(manifest: Manifest) -> str:
    slopes = _slopes(manifest)
    if not slopes:
        return ""
    text = f"{_escape(manifest.target.name)} = {slopes.pop('intercept')!r}"
    if len(slopes) > MAX_FORMULA_INPUTS:
        text += " + the sum of each input times its slope"
        slopes = {}
    for name, slope in slopes.items():
        text += f" {'−' if slope < 0 else '+'} {abs(slope)!r} · {_escape(name)}"
    return f"\n```text\n{text}\n```\n"


def _slopes(manifest: Manifest) -> dict[str, float]:
    """The intercept, then the slope of each input; nothing with hidden layers."""
    learned = manifest.scores.get("learned", {})
    names = [column.name for column in manifest.inputs]
    keys = ["b", "m"] if len(names) == 1 else ["intercept", *names]  # as evaluation.json has them
    return {
        name: learned[key] for name, key in zip(["intercept", *names], keys, strict=True) if learned
    }


def _columns(manifest: Manifest, names: list[str]) -> str:
    """One line for each column of a table, of which a category column is several inputs."""
    slopes, inputs = _slopes(manifest), {column.name: column for column in manifest.inputs}
    rows = [["column", "in the training rows", *["slope"] * bool(slopes)]]
    for name in names[:MAX_SHOWN]:
        parts = inputs_of(name, manifest.categories)
        if name in manifest.categories:
            categories = _listed(map(_code, manifest.met_categories(name)))
            held = f"one of {categories}; each an input of 0 or 1, such as {_code(parts[0])}"
        else:
            held = f"{inputs[name].minimum:.6g} to {inputs[name].maximum:.6g}"
        slope = [_listed(f"{slopes[part]:.6g}" for part in parts)] if slopes else []
        rows.append([_code(name), held, *slope])
    more = len(names) - MAX_SHOWN
    return _table(rows) + f"\n\nAnd {more} more columns: see `model.json`." * (more > 0)


def _scores(scores: dict[str, dict[str, Any]]) -> str:
    split = "test" if "test" in scores else "train"
    rows = [["rows", "predicted by", *SCORES.values()]]
    for found, kind, predictor in [
        (scores[split], split, "this model"),
        (scores["least_squares"][split], split, "least squares"),
        (scores["train"], "train", "this model"),
    ][: 3 if split == "test" else 2]:
        values = [f"{found[key]:.6g}" if key in found else "–" for key in SCORES]
        rows.append([f"{found['rows']} {kind}", predictor, *values])
    return _table(rows)


def _proof(proof: Proof) -> str:
    text = f"it predicted the {proof.rows} {proof.split} rows as the trained one does, to the bit"
    if proof.onnx_difference_at_most is None:
        return text
    return (
        f"{text}, and ONNX Runtime the same from `{ONNX}`, to {proof.onnx_difference_at_most:g} of"
        " the magnitudes that add up to a prediction"
    )


def _table(rows: list[list[str]]) -> str:
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _listed(texts: Iterable[str]) -> str:
    shown = [*texts]
    return ", ".join(shown[:MAX_SHOWN]) + ", …" * (len(shown) > MAX_SHOWN)


def _code(name: str) -> str:
    return f"`{_escape(name)}`"


def _escape(name: str) -> str:
    """A name on one line, in which nothing can end a code span, a cell of a table or a fence."""
    shown = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
    edges = {0, len(shown) - 1}
    return "".join(
        c
        if c.isprintable() and c not in "`|\\" and not (c == " " and i in edges)
        else f"\\u{{{ord(c):x}}}"
        for i, c in enumerate(shown)
    )

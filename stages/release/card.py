"""README.md of a release: the model card, with programs that need only the release folder."""

from collections.abc import Iterable
from inspect import getsource
from pathlib import Path
from string import Template
from typing import Any

from stages.release import reference
from stages.release.manifest import ONNX, Manifest, Proof
from stages.rows.categories import columns_of, inputs_of

MAX_SHOWN = 20  # columns, and categories of a column
MAX_FORMULA_INPUTS = 3
MAX_NAME = 60  # characters
SCORES = {"rmse": "RMSE", "mae": "mean absolute error", "max_error": "largest error", "r2": "R²"}


def card(manifest: Manifest) -> str:
    """Return the model card. Names from the table stand in its text, never in its programs."""
    hidden, dtype = manifest.architecture.hidden, manifest.target.type
    names = columns_of([column.name for column in manifest.inputs], manifest.categories)
    has_onnx = ONNX in manifest.files
    line = "a line" if len(manifest.inputs) == 1 else "a linear model"
    return _template("card.md").substitute(
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
        onnx=_template("card_onnx.md").substitute(dtype=dtype) if has_onnx else "",
        functions=f"{getsource(reference.read_weights)}\n\n{getsource(reference.predict)}",
        device="a CPU" if manifest.trained_on == "cpu" else manifest.trained_on,
        torch=manifest.versions["torch"],
        proof=_proof(manifest.proof),
    )


def _template(name: str) -> Template:
    return Template(Path(__file__).with_name(name).read_text(encoding="utf-8"))


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
    """Map the intercept and each input to its slope; empty for a model with hidden layers."""
    learned = manifest.scores.get("learned", {})
    names = [column.name for column in manifest.inputs]
    keys = ["b", "m"] if len(names) == 1 else ["intercept", *names]  # as evaluation.json has them
    return {
        name: learned[key] for name, key in zip(["intercept", *names], keys, strict=True) if learned
    }


def _columns(manifest: Manifest, names: list[str]) -> str:
    """Write one line for each column of the table; a category column makes several inputs."""
    slopes, inputs = _slopes(manifest), {column.name: column for column in manifest.inputs}
    rows = [["column", "in the training rows", *["slope"] * bool(slopes)]]
    for name in names[:MAX_SHOWN]:
        input_names = inputs_of(name, manifest.categories)
        if name in manifest.categories:
            categories = _listed(map(_code, manifest.met_categories(name)))
            example = _code(input_names[0])
            content = f"one of {categories}; each category is an input of 0 or 1, such as {example}"
        else:
            content = f"{inputs[name].minimum:.6g} to {inputs[name].maximum:.6g}"
        slope = [_listed(f"{slopes[key]:.6g}" for key in input_names)] if slopes else []
        rows.append([_code(name), content, *slope])
    more = len(names) - MAX_SHOWN
    return _table(rows) + f"\n\nAnd {more} more columns: see `model.json`." * (more > 0)


def _scores(scores: dict[str, dict[str, Any]]) -> str:
    split = "test" if "test" in scores else "train"
    rows = [["rows", "predicted by", *SCORES.values()]]
    for values, kind, predictor in [
        (scores[split], split, "this model"),
        (scores["least_squares"][split], split, "least squares"),
        (scores["train"], "train", "this model"),
    ][: 3 if split == "test" else 2]:
        cells = [f"{values[key]:.6g}" if key in values else "–" for key in SCORES]
        rows.append([f"{values['rows']} {kind}", predictor, *cells])
    return _table(rows)


def _proof(proof: Proof) -> str:
    text = (
        f"the NumPy program above predicted what PyTorch had predicted for {proof.rows}"
        f" {proof.split} rows"
    )
    if ONNX in proof.programs:
        text += f", and ONNX Runtime predicted the same from `{ONNX}`"
    return (
        f"{text}; the largest difference allowed is {proof.difference_at_most:g}, relative to the"
        " magnitudes that add up to a prediction"
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
    """Escape what could end a line, a code span, a table cell or a fence, and shorten the name."""
    shown = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
    edges = {0, len(shown) - 1}
    return "".join(
        c
        if c.isprintable() and c not in "`|\\" and not (c == " " and i in edges)
        else f"\\u{{{ord(c):x}}}"
        for i, c in enumerate(shown)
    )

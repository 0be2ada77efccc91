"""README.md of a release: the model card, with programs that need only the release folder."""

from inspect import getsource
from pathlib import Path

from jinja2 import Environment

from stages.release import reference
from stages.release.manifest import Manifest
from stages.rows.categories import coefficient_names
from stages.rows.split import SPLITS


def card(manifest: Manifest) -> str:
    """Fill in card.md. Names from the table stand in its text, never in its programs."""
    scores = manifest.scores
    found = {"this model": scores, "least squares": scores["least_squares"]}
    rows = [(name, who, found[who][name]) for name in SPLITS if name in scores for who in found]
    learned = scores.get("learned", {})
    names = [column.name for column in manifest.inputs]
    intercept, *slopes = [learned[key] for key in coefficient_names(names)] if learned else [None]
    environment = Environment(trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 (no HTML)
    environment.filters |= {"escape": escape, "short": "{:.6g}".format}
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        manifest.model_dump(),
        intercept=intercept,
        slopes=dict(zip(names, slopes, strict=False)),
        score_rows=rows,
        functions=f"{getsource(reference.read_weights)}\n\n{getsource(reference.predict)}",
    )


def escape(name: str) -> str:
    """Escape what could end a line, a code span, a table cell or a fence."""
    return "".join(c if c.isprintable() and c not in "`|\\" else f"\\u{{{ord(c):x}}}" for c in name)

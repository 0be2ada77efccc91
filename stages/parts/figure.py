"""The figure for people, drawn in a process of its own: losses, fit and residuals."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

from stages.parts.errors import UserError
from stages.parts.files import HISTORY
from stages.parts.process import run

GREY, BLUE, ORANGE = "#7b7b7b", "#1f83cc", "#d55e00"  # told apart by colour-blind people too
STYLE: dict[Any, Any] = {
    "font.size": 9,
    **dict.fromkeys(
        ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], GREY
    ),  # readable on white and on black
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.markerscale": 2,
    "text.parse_math": False,  # a column may be called "price ($)"
    "svg.hashsalt": "figure",  # names inside the file are random otherwise
}
MAX_LABEL = 40  # characters

Table = dict[str, list[str]]


def main() -> None:
    folder = Path(sys.argv[1])
    with np.errstate(all="ignore"):  # limits of axes overflow where numbers near 1e300 are drawn
        figure = draw(read_table(HISTORY), read_table(folder / "fit.csv"))
        figure.savefig(folder / "figure.svg", transparent=True, metadata={"Date": None})
        figure.savefig(folder / "figure.png", transparent=True, dpi=150)


def read_table(path: Path) -> Table:
    """A CSV file's columns, by name."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run `dvc repro`.") from None
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def draw(history: Table, fit: Table) -> Figure:
    """Three panels: losses over epochs, data and fit, residuals over predictions.

    The losses' axis is logarithmic where they span more than a decade.
    """
    mpl.rcdefaults()  # and no user's settings
    mpl.rcParams.update(STYLE)
    fonts = font_manager.fontManager
    fonts.ttflist = [font for font in fonts.ttflist if mpl.get_data_path() in font.fname]
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    panels = figure.subplots(1, 3)
    _draw_losses(panels[0], history)
    _draw_fit(panels[1], fit)
    _draw_residuals(panels[2], fit)
    return figure


def _draw_losses(panel: Any, history: Table) -> None:
    epochs = _numbers(history["epoch"])
    losses = {"training": _numbers(history["train_loss"])}
    if all(history["validation_loss"]):
        losses["validation"] = _numbers(history["validation_loss"])
    for (name, values), color in zip(losses.items(), (BLUE, ORANGE), strict=False):
        panel.plot(epochs, values, color=color, label=name, marker="." * (len(values) == 1))
    lowest, highest = min(map(min, losses.values())), max(map(max, losses.values()))
    if 0 < 10 * lowest < highest:
        panel.set_yscale("log", subs=[2, 5])
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}" if highest < 1000 * lowest else "")
    panel.set(title="Loss", xlabel="epoch", ylabel="mean loss")
    panel.legend()


def _draw_fit(panel: Any, fit: Table) -> None:
    x = _numbers(fit["x"])
    panel.scatter(
        x, _numbers(fit["actual"]), s=6, color=GREY, linewidths=0, alpha=0.8, label="data"
    )
    is_curve = all(fit["exact"])
    label = "model" if is_curve else "actual = predicted"
    panel.plot(x, _numbers(fit["predicted"]), color=BLUE, label=label)
    if is_curve:
        panel.plot(x, _numbers(fit["exact"]), color=ORANGE, linestyle="--", label="least squares")
    labels = [shorten(fit[name][0], MAX_LABEL, placeholder=" …") for name in ("x_label", "target")]
    panel.set(title="Fit", xlabel=labels[0], ylabel=labels[1])
    panel.legend()


def _draw_residuals(panel: Any, fit: Table) -> None:
    x, y = _numbers(fit["predicted"]), _numbers(fit["residual"])
    panel.scatter(x, y, s=6, color=BLUE, linewidths=0, alpha=0.8)
    panel.axhline(0, color=GREY, linewidth=0.8)
    panel.set(title="Residuals", xlabel="predicted", ylabel="actual − predicted")


def _numbers(cells: Sequence[str]) -> list[float]:
    return [float(cell) for cell in cells]


if __name__ == "__main__":
    run(main)

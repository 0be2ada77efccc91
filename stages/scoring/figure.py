"""The figure for people: losses, fit and residuals."""

from io import BytesIO
from textwrap import shorten
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

GREY, BLUE, ORANGE = "#7b7b7b", "#1f83cc", "#d55e00"  # distinct for colour-blind people
STYLE: dict[Any, Any] = {
    "font.size": 9,
    **dict.fromkeys(
        ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], GREY
    ),  # readable on white and on black
    **dict.fromkeys(["figure.facecolor", "figure.edgecolor", "axes.facecolor"], "none"),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.markerscale": 2,
    "text.parse_math": False,  # a column may be called "price ($)"
    "svg.hashsalt": "figure",  # without it, names inside the file are random
}
MAX_LABEL = 40  # characters


def figure(history: pd.DataFrame, fit: pd.DataFrame, loss_label: str) -> bytes:
    """Return the content of figure.svg.

    Args:
        history: ``epoch``, ``train_loss`` and ``validation_loss`` (NaN if there is none).
        fit: ``x``, ``actual``, ``predicted``, ``least_squares`` (missing if there are several
            features), ``residual``, and in every row the names ``x_label`` and ``target``.
        loss_label: What the loss is, with its unit.
    """
    svg = BytesIO()
    with np.errstate(all="ignore"):  # axes overflow at numbers near 1e300
        canvas = FigureCanvasSVG(draw(history, fit, loss_label))
        canvas.print_svg(svg, metadata={"Date": None})  # savefig draws twice
    return svg.getvalue()


def draw(history: pd.DataFrame, fit: pd.DataFrame, loss_label: str) -> Figure:
    """Draw three panels: losses over epochs, data and fit, residuals over predictions.

    The axis of the losses is logarithmic if they span more than a factor of ten.
    """
    mpl.rcdefaults()  # ignore the user's own settings
    mpl.rcParams.update(STYLE)
    fonts = font_manager.fontManager
    fonts.ttflist = [font for font in fonts.ttflist if mpl.get_data_path() in font.fname]
    drawn = Figure(figsize=(10.5, 3.2), layout="constrained")
    panels = drawn.subplots(1, 3)
    _draw_losses(panels[0], history, loss_label)
    _draw_fit(panels[1], fit)
    _draw_residuals(panels[2], fit)
    return drawn


def _draw_losses(panel: Any, history: pd.DataFrame, label: str) -> None:
    losses = {"training": history["train_loss"], "validation": history["validation_loss"]}
    if losses["validation"].isna().any():
        del losses["validation"]
    for (name, values), color in zip(losses.items(), (BLUE, ORANGE), strict=False):
        marker = "." * (len(values) == 1)
        panel.plot(history["epoch"], values, color=color, label=name, marker=marker)
    lowest = min(values.min() for values in losses.values())
    highest = max(values.max() for values in losses.values())
    if 0 < 10 * lowest < highest:
        panel.set_yscale("log", subs=[2, 5])
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}" if highest < 1000 * lowest else "")
    panel.set(title="Loss", xlabel="epoch", ylabel=_shortened(label))
    panel.legend()


def _draw_fit(panel: Any, fit: pd.DataFrame) -> None:
    panel.scatter(fit["x"], fit["actual"], s=6, color=GREY, linewidths=0, alpha=0.8, label="data")
    is_curve = bool(fit["least_squares"].notna().all())
    label = "model" if is_curve else "actual = predicted"
    panel.plot(fit["x"], fit["predicted"], color=BLUE, label=label)
    if is_curve:
        panel.plot(
            fit["x"], fit["least_squares"], color=ORANGE, linestyle="--", label="least squares"
        )
    x_label, target = fit["x_label"].iloc[0], fit["target"].iloc[0]
    panel.set(title="Fit", xlabel=_shortened(x_label), ylabel=_shortened(target))
    panel.legend()


def _draw_residuals(panel: Any, fit: pd.DataFrame) -> None:
    panel.scatter(fit["predicted"], fit["residual"], s=6, color=BLUE, linewidths=0, alpha=0.8)
    panel.axhline(0, color=GREY, linewidth=0.8)
    panel.set(title="Residuals", xlabel="predicted", ylabel="actual − predicted")


def _shortened(label: str) -> str:
    return shorten(label, MAX_LABEL, placeholder=" …")

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
    loss_panel, fit_panel, residual_panel = drawn.subplots(1, 3)

    names = {"train_loss": "training", "validation_loss": "validation"}
    losses = history.set_index("epoch").rename(columns=names).dropna(axis="columns")
    marker = "." * (len(losses) == 1)
    for name, color in zip(losses, (BLUE, ORANGE), strict=False):
        loss_panel.plot(losses[name], color=color, label=name, marker=marker)
    lowest, highest = losses.to_numpy().min(), losses.to_numpy().max()
    if 0 < 10 * lowest < highest:
        loss_panel.set_yscale("log", subs=[2, 5])
        loss_panel.yaxis.set_major_formatter("{x:g}")
        loss_panel.yaxis.set_minor_formatter("{x:g}" if highest < 1000 * lowest else "")
    loss_panel.set(title="Loss", xlabel="epoch", ylabel=_shortened(loss_label))
    loss_panel.legend()

    x, x_label, target = fit["x"], fit["x_label"].iloc[0], fit["target"].iloc[0]
    points: dict[str, Any] = {"s": 6, "linewidths": 0, "alpha": 0.8}
    fit_panel.scatter(x, fit["actual"], color=GREY, label="data", **points)
    is_curve = bool(fit["least_squares"].notna().all())
    label = "model" if is_curve else "actual = predicted"
    fit_panel.plot(x, fit["predicted"], color=BLUE, label=label)
    if is_curve:
        fit_panel.plot(x, fit["least_squares"], "--", color=ORANGE, label="least squares")
    fit_panel.set(title="Fit", xlabel=_shortened(x_label), ylabel=_shortened(target))
    fit_panel.legend()

    residual_panel.scatter(fit["predicted"], fit["residual"], color=BLUE, **points)
    residual_panel.axhline(0, color=GREY, linewidth=0.8)
    residual_panel.set(title="Residuals", xlabel="predicted", ylabel="actual − predicted")
    return drawn


def _shortened(label: str) -> str:
    return shorten(label, MAX_LABEL, placeholder=" …")

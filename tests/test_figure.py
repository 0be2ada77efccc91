import sys
from pathlib import Path

import pytest

from stages.parts.figure import draw, main
from stages.parts.files import HISTORY, TRAINED, write_csv

FIT = {
    "x": ["0.0", "1.0", "2.0"],
    "actual": ["0.1", "0.9", "2.1"],
    "predicted": ["0.0", "1.0", "2.0"],
    "exact": ["0.05", "1.05", "2.05"],
    "residual": ["0.1", "-0.1", "0.1"],
    "x_label": ["dose ($)"] * 3,
    "target": ["a very long name of a column " * 5] * 3,
}


def history(training, validation):
    return {
        "epoch": [str(epoch) for epoch in range(1, len(training) + 1)],
        "train_loss": training,
        "validation_loss": validation,
    }


def panels(figure):
    return {panel.get_title(): panel for panel in figure.axes}


def legend(panel):
    return [text.get_text() for text in panel.get_legend().get_texts()]


def test_the_panels_show_losses_fit_and_residuals_with_the_columns_names():
    found = panels(draw(history(["1.0", "0.5"], ["2.0", "0.6"]), FIT))
    assert list(found) == ["Loss", "Fit", "Residuals"]
    assert legend(found["Loss"]) == ["training", "validation"]
    assert legend(found["Fit"]) == ["data", "model", "least squares"]
    assert found["Fit"].get_xlabel() == "dose ($)"
    assert found["Fit"].get_ylabel() == "a very long name of a column a very …"
    assert found["Residuals"].get_ylabel() == "actual − predicted"


def test_what_there_is_not_is_not_drawn():
    found = panels(draw(history(["1.0"], [""]), FIT | {"exact": [""] * 3}))
    assert legend(found["Loss"]) == ["training"]
    assert legend(found["Fit"]) == ["data", "actual = predicted"]


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        (["1.0", "0.2"], "linear"),
        (["1.0", "0.01"], "log"),
        (["1.0", "0.0"], "linear"),  # of no use on a logarithmic axis
    ],
)
def test_losses_that_span_decades_have_a_logarithmic_axis(losses, scale):
    found = panels(draw(history(losses, ["", ""]), FIT))
    assert found["Loss"].get_yscale() == scale


@pytest.mark.parametrize("value", ["1e300", "-1e300", "1e-300", "0.0"])
def test_extreme_and_constant_values_are_drawn(workspace, monkeypatch, value):
    names = ["epoch", "train_loss", "validation_loss"]
    TRAINED.mkdir(parents=True)
    write_csv(HISTORY, names, [[1, 1e300, ""], [2, 1e-300, ""]])
    extreme = {name: [value] * 3 for name in ("x", "actual", "predicted", "exact", "residual")}
    columns = FIT | extreme
    write_csv(Path("fit.csv"), [*columns], zip(*columns.values(), strict=True))
    monkeypatch.setattr(sys, "argv", ["figure", "."])
    main()
    assert Path("figure.png").stat().st_size > 1000
    assert Path("figure.svg").read_text().count("<use") > 9

import numpy as np
import pandas as pd
import pytest

from stages.scoring.figure import draw, figure

FIT = pd.DataFrame(
    {
        "x": [0.0, 1.0, 2.0],
        "actual": [0.1, 0.9, 2.1],
        "predicted": [0.0, 1.0, 2.0],
        "least_squares": [0.05, 1.05, 2.05],
        "residual": [0.1, -0.1, 0.1],
        "x_label": "dose ($)",
        "target": "a very long name of a column " * 5,
    }
)
NUMBERS = ["x", "actual", "predicted", "least_squares", "residual"]
LABEL = "mean squared error of z-scores"


def history(training, validation):
    epochs = range(1, len(training) + 1)
    columns = {"epoch": epochs, "train_loss": training, "validation_loss": validation}
    return pd.DataFrame(columns)


def panels(figure):
    return {panel.get_title(): panel for panel in figure.axes}


def legend(panel):
    return [text.get_text() for text in panel.get_legend().get_texts()]


def test_the_panels_show_losses_fit_and_residuals_with_the_names_of_columns():
    drawn = panels(draw(history([1.0, 0.5], [2.0, 0.6]), FIT, LABEL))
    assert list(drawn) == ["Loss", "Fit", "Residuals"]
    assert legend(drawn["Loss"]) == ["training", "validation"]
    assert legend(drawn["Fit"]) == ["data", "model", "least squares"]
    assert drawn["Fit"].get_xlabel() == "dose ($)"
    assert drawn["Fit"].get_ylabel() == "a very long name of a column a very …"
    assert drawn["Loss"].get_ylabel() == LABEL
    assert drawn["Residuals"].get_ylabel() == "actual − predicted"


def test_missing_validation_losses_and_least_squares_are_not_drawn():
    drawn = panels(draw(history([1.0], [np.nan]), FIT.assign(least_squares=None), LABEL))
    assert legend(drawn["Loss"]) == ["training"]
    assert legend(drawn["Fit"]) == ["data", "actual = predicted"]


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([1.0, 0.2], "linear"),
        ([1.0, 0.01], "log"),
        ([1.0, 0.0], "linear"),  # of no use on a logarithmic axis
    ],
)
def test_losses_that_span_decades_have_a_logarithmic_axis(losses, scale):
    drawn = panels(draw(history(losses, np.nan), FIT, LABEL))
    assert drawn["Loss"].get_yscale() == scale


@pytest.mark.parametrize("value", [1e300, -1e300, 1e-300, 0.0])
def test_extreme_and_constant_values_are_drawn(value):
    fit = FIT.assign(**dict.fromkeys(NUMBERS, value))
    assert figure(history([1e300, 1e-300], np.nan), fit, LABEL).count(b"<use") > 9

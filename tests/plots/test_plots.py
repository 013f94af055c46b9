"""Plots show the data that they were given, with units, and write real PNGs."""

import sys

import numpy as np
import pytest

from soar_tf import plots
from soar_tf.errors import InputError
from soar_tf.plots.adversarial_examples import magnified
from soar_tf.plots.growth import growth


def lines(axes):
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
    }


def test_training_curves_have_a_panel_per_phase_and_leave_gaps():
    one = [
        {"phase": "standard", "epoch": 1, "loss": 2.0, "val_accuracy": 0.25},
        {"phase": "soar", "epoch": 1, "loss": 1.0, "val_accuracy": 0.5, "val_pgd_accuracy": 0.125},
        {"phase": "soar", "epoch": 2, "loss": float("nan"), "val_accuracy": 0.75},
    ]
    two = [{"phase": "soar", "loss": 3.0}]
    first, second, below, accuracy = plots.training_curves({"one": one, "two": two}).axes
    assert (first.get_title(), second.get_title()) == ("phase standard", "phase soar")
    assert lines(first) == {"one: loss": ([1], [2.0])}
    drawn = lines(second)
    assert drawn["two: loss"] == ([1], [3.0]) and drawn["one: loss"][0] == [1, 2]
    np.testing.assert_array_equal(drawn["one: loss"][1], [1.0, np.nan])
    assert lines(below)["one: val_accuracy"] == ([1], [25.0])
    assert lines(accuracy)["one: val_accuracy"] == ([1, 2], [50.0, 75.0])
    assert lines(accuracy)["one: val_pgd_accuracy"] == ([1], [12.5])
    assert (first.get_ylabel(), below.get_ylabel()) == ("loss", "accuracy in %")
    assert accuracy.get_xlabel() == "epoch of soar"


def test_training_curves_name_each_line_at_its_end_and_keep_names_apart():
    rows = [{"loss": 1.0, "val_loss": 1.01}, {"loss": 0.5, "val_loss": 0.5}]
    loss, _ = plots.training_curves({"a: b": rows}).axes
    assert loss.get_legend() is None
    names = {text.get_text(): text for text in loss.texts}
    assert set(names) == {"loss", "val_loss"} and names["loss"].xy == (2, 0.5)
    heights = sorted(text.xyann[1] for text in loss.texts)
    assert heights[1] - heights[0] > 0.07 and heights[0] >= 0 and heights[1] <= 1
    loss, _ = plots.training_curves({"run": [{"loss": 1.0, "val_loss": 9.0}]}).axes
    heights = {text.get_text(): text.xyann[1] for text in loss.texts}
    assert heights["loss"] < 0.1 and heights["val_loss"] > 0.9  # at the lines' own heights
    loss, _ = plots.training_curves({str(run): rows for run in range(20)}).axes
    heights = np.sort([text.xyann[1] for text in loss.texts])
    assert len(heights) == 40 and (np.diff(heights) > 0.99 / 39).all()
    assert heights[0] >= -1e-9 and heights[-1] <= 1
    assert "7: val_loss" in {text.get_text() for text in loss.texts}


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1.0, 2.0, 9.0], "linear"), ([1.0, 2.0, 500.0], "log"), ([0.0, 1.0, 500.0], "symlog")],
)
def test_the_axis_is_logarithmic_where_the_loss_explodes(values, scale):
    loss, accuracy = plots.training_curves({"run": [{"loss": value} for value in values]}).axes
    assert (loss.get_yscale(), accuracy.get_yscale()) == (scale, "linear")


def test_growth_counts_epochs_by_whole_numbers():
    panel = {
        "x": [1, 2, 3],
        "curves": {"a": [0.5, 0.25, 1.0], "measured": [0, 0, 0]},
        "title": "",
        "x_label": "epoch",
        "y_label": "",
        "log_x": False,
        "log_y": False,
    }
    counted, between = growth([panel, {**panel, "x": [0.0, 0.5, 1.0]}]).axes
    assert lines(counted)["a"] == ([1, 2, 3], [0.5, 0.25, 1.0])
    assert all(tick == round(tick) for tick in counted.get_xticks())
    assert not all(tick == round(tick) for tick in between.get_xticks())


def test_accuracy_against_epsilon():
    curve = {
        "epsilons": [0, 8 / 255],
        "accuracy": [0.9, 0.3],
        "norm": "linf",
        "attack": "pgd20",
        "low": [0.8, 0.2],
        "high": [0.95, 0.4],
    }
    (axes,) = plots.accuracy_epsilon({"net": curve}, points={"worst": (8 / 255, 0.2)}).axes
    drawn = lines(axes)
    np.testing.assert_allclose(drawn["net, pgd20"], ([0, 8], [90, 30]))
    np.testing.assert_allclose(drawn["worst"], ([8], [20]))
    assert axes.get_xlabel() == "Linf radius in 1/255 of the pixel range"
    assert len(axes.collections) == 1  # the band


def test_heat_map_surface_and_direction():
    axes, bar = plots.transfer_heat_map(
        ["a", "b"], ["white-box", "from a"], [[0, 1], [0.5, 0.25]]
    ).axes
    assert [text.get_text() for text in axes.texts] == ["0.0", "100.0", "50.0", "25.0"]
    assert bar.get_ylabel() == "accuracy in %"
    axes = plots.loss_surface([-0.1, 0, 0.1], [-0.1, 0, 0.1], np.eye(3), epsilon=0.05).axes[0]
    corners = lines(axes)["the ball"]
    np.testing.assert_allclose(np.abs(corners[0]) + np.abs(corners[1]), 12.75)
    axes = plots.loss_direction([0, 0.2], {"net": [1.0, 2.0]}, epsilon=0.1).axes[0]
    assert lines(axes)["net"] == ([0, 51.0], [1.0, 2.0]) and lines(axes)["epsilon"][0][0] == 25.5


def test_the_grid_of_images_says_how_much_it_magnifies():
    x = np.full((2, 3, 4, 3), 0.5)
    x_adv = x + np.array([0.1, -0.05])[:, None, None, None]
    figure = plots.adversarial_examples(x, x_adv, [("cat", "dog"), ("dog", "cat")])
    assert figure.axes[4].get_ylabel() == "change x 5" and figure.axes[2].get_title() == "dog"
    pictures, factor = magnified(x, x_adv)
    assert factor == pytest.approx(5)
    np.testing.assert_allclose(pictures[:, 0, 0, 0], [1.0, 0.25])
    assert magnified(x, x)[0].max() == 0.5  # nothing changed: grey
    png = plots.to_png(figure)
    assert png.startswith(b"\x89PNG")


def test_a_missing_matplotlib_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not plots.available()
    with pytest.raises(InputError, match=r"pip install 'soar-tf\[plots\]'"):
        plots.training_curves({"run": [{"loss": 1.0}]})

"""The accuracy curve against its closed form, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.errors import InputError
from soar_tf.evaluation import accuracy_curve, intervals, loss_surface

X = np.broadcast_to(
    np.linspace(0.05, 0.95, 10, dtype="float32")[:, None, None, None], (10, 2, 2, 1)
)
Y = (X[:, 0, 0, 0] > 0.5).astype(int)


def split(x):
    """Two classes, split at a mean pixel of 0.5."""
    margin = tf.reduce_mean(tf.reshape(x, [tf.shape(x)[0], -1]), axis=1) - 0.5
    return tf.stack([-margin, margin], axis=1) * 20.0


def test_the_closed_form():
    # An image at m breaks exactly at radii above |m - 0.5|: 0.05, 0.15, ... 0.45.
    curve = accuracy_curve(split, X, Y, "fgsm", [0.4, "0.1", 0.2, 0.2, 0])
    assert curve.epsilons == (0.0, 0.1, 0.2, 0.4)
    assert curve.accuracy == (1.0, 0.8, 0.6, 0.2)
    assert (curve.attack, curve.norm, curve.n) == ("fgsm", "linf", 10)


class Fickle(soar_tf.attacks.Attack):
    """Breaks everything at a radius of 0.1 and nothing at any other."""

    def search(self, logits_fn, x, y, keys):
        if self.epsilon != 0.1:
            return x
        return tf.where(x > 0.5, tf.maximum(x - 0.1, 0.0), x + 0.1)


def test_what_broke_stays_broken():
    curve = accuracy_curve(split, X[4:6], Y[4:6], Fickle(), [0.05, 0.1, 0.3])
    assert curve.accuracy == (1.0, 1.0, 0.0, 0.0)


def test_default_radii_are_multiples_within_the_pixel_range():
    curve = accuracy_curve(split, X, Y, "fgsm:epsilon=0.4")
    assert curve.epsilons == pytest.approx((0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0))
    l2 = soar_tf.evaluation.curve.curve_radii(soar_tf.attacks.get("l2pgd2:epsilon=0.5"))
    assert l2 == pytest.approx([0.125, 0.25, 0.5, 0.75, 1.0, 2.0])


def test_it_goes_on_from_the_state_of_an_evaluation(tmp_path):
    state, calls = tmp_path / "s", []
    soar_tf.evaluate(split, X, Y, ["fgsm"], state=state)
    first = accuracy_curve(split, X, Y, "fgsm", [0.1, 0.2], state=state)
    again = accuracy_curve(split, X, Y, "fgsm", [0.1, 0.2], state=state, progress=calls.append)
    assert again == first and calls == []
    more = accuracy_curve(split, X, Y, "fgsm", [0.1, 0.2, 0.4], state=state, progress=calls.append)
    assert more.accuracy == (1.0, 0.8, 0.6, 0.2)
    assert {call.name for call in calls} == {"fgsm at 0.4"}
    with pytest.raises(InputError, match="seed differs"):
        accuracy_curve(split, X, Y, "fgsm", [0.1], state=state, seed=1)


@pytest.mark.parametrize(
    ("attack", "epsilons", "sentence"),
    [
        ("spatial", None, "must have a radius"),
        ("fgsm", [0.0], "at least one radius above 0"),
        ("fgsm", [8], "`epsilons` must be .* write 8/255"),
        ("fgsm", ["x"], "`epsilons` must be a finite number"),
    ],
)
def test_refusals(attack, epsilons, sentence):
    with pytest.raises(InputError, match=sentence):
        accuracy_curve(split, X, Y, attack, epsilons)


def test_wilson_intervals():
    # Solutions of (p - s)^2 = z^2 s (1 - s) / n, the interval's definition.
    for count, n in ((0, 10), (3, 10), (400, 1000), (10, 10)):
        roots = np.roots([1 + 1.96**2 / n, -(2 * count / n + 1.96**2 / n), (count / n) ** 2])
        assert intervals.wilson(count, n) == pytest.approx(sorted(roots.real), abs=1e-9)


def test_the_loss_surface_of_a_linear_network():
    # Margin m moves by the distance along the gradient's signs, which all agree; the cross-entropy
    # of logits (-20 m, 20 m) is log(1 + exp(-40 |m|)) for the right class.
    x, y = X[3:4], Y[3:4]  # at 0.35: class 0
    surface = loss_surface(split, x, y, reach=0.1, points=5)
    margins = 0.35 + surface.distances - 0.5
    np.testing.assert_allclose(surface.distances, [-0.1, -0.05, 0, 0.05, 0.1], atol=1e-12)
    np.testing.assert_allclose(surface.along, np.log1p(np.exp(40 * margins)), rtol=1e-4)
    np.testing.assert_allclose(surface.losses[2], surface.along)
    for points in (1, 4):
        with pytest.raises(InputError, match="`points` must be"):
            loss_surface(split, x, y, points=points)

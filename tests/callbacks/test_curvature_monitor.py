"""CurvatureMonitor against the linear softmax model by hand, and against SOAR's own penalty."""

import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.callbacks import CurvatureMonitor
from soar_tf.errors import InputError
from soar_tf.methods import SOAR, Forward
from soar_tf.ops import gradients, losses, random


def _fit(model, data, monitor, epochs=1):
    return model.fit(*data, epochs=epochs, verbose=0, callbacks=[monitor]).history


def test_it_is_the_hand_computed_value_on_a_linear_softmax(linear_model, threshold_data):
    x, y = threshold_data
    monitor = CurvatureMonitor((x, y), epsilon=0.1, num_directions=4, init="zero", seed=5)
    history = _fit(linear_model(), (x, y), monitor)
    # Logits -m and m with m = 8 (mean - 0.5), so dl/dx_j = 4 (p_1 - y) for each of the 4 pixels.
    images = x.reshape(10, 4).astype("float64")

    def gradient(points):
        p = 1 / (1 + np.exp(-16 * (points.mean(axis=1) - 0.5)))
        return np.repeat(4 * (p - y)[:, None], 4, axis=1)

    keys = random.derive(
        random.example_keys(5, tf.range(10), purpose="curvature monitor"), "curvature"
    )
    sizes = []
    for direction in range(4):
        own = random.derive(keys, direction)
        z = random.normal(own, (2, 2, 1)).numpy().reshape(10, 4).astype("float64")
        z_last = random.normal(random.derive(own, "z_1"), ()).numpy()[:, None]
        h = np.maximum(random.uniform(random.derive(own, "h"), (), 0.0, 0.03).numpy(), 1e-3)
        length, h = np.linalg.norm(z, axis=1, keepdims=True), h[:, None]
        difference = (gradient(images + h * z / length) - gradient(images)) / h
        sizes.append(np.linalg.norm(length * difference + z_last * gradient(images), axis=1))
    factor = (4 * 0.1**2 + 1) / 2
    np.testing.assert_allclose(history["curvature_1"], [factor * sizes[0].mean()], rtol=1e-3)
    np.testing.assert_allclose(history["curvature_4"], [factor * np.mean(sizes)], rtol=1e-3)
    assert abs(sizes[0].mean() / np.mean(sizes) - 1) > 0.02  # the two are told apart


def test_it_is_soars_penalty_with_the_same_keys(smooth_network, images):
    x, y = images
    method = SOAR(epsilon=0.1, num_directions=3, norm_clip=None)
    model = soar_tf.RobustModel(smooth_network, "standard")
    model.compile("sgd")
    monitor = CurvatureMonitor(images, epsilon=0.1, num_directions=3)
    history = _fit(model, images, monitor)
    forward = Forward(smooth_network)
    keys = random.example_keys(0, tf.range(12), purpose="curvature monitor")
    point = method.expansion_point(
        forward, tf.constant(x), y, losses.cross_entropy, random.derive(keys, "init")
    )

    def values(inputs):
        return losses.cross_entropy(y, forward.curvature(inputs))

    _, gradient = gradients.input_gradient(values, point)
    expected = method.penalty(values, point, gradient, random.derive(keys, "curvature"))
    np.testing.assert_allclose(history["curvature_3"], [expected.numpy().mean()], rtol=1e-3)


def test_directions_are_looped_over_in_a_graph_compiled_once(linear_model, threshold_data, traces):
    model, sizes, counts = linear_model(), [], []
    for directions in (2, 40):
        monitor = CurvatureMonitor(threshold_data, num_directions=directions)
        history = _fit(model, threshold_data, monitor)
        counts.append(traces())
        _fit(model, threshold_data, monitor, epochs=3)
        assert traces() == counts[-1]
        assert set(history) == {"loss", "curvature_1", f"curvature_{directions}"}
        definition = monitor._penalties._compiled((2, 2, 1)).get_concrete_function().graph
        definition = definition.as_graph_def()
        inner = [len(function.node_def) for function in definition.library.function]
        sizes.append((len(definition.node), sum(inner)))
    assert sizes[0] == sizes[1]


def test_epochs_draw_equal_directions(linear_model, threshold_data):
    monitor = CurvatureMonitor(threshold_data, num_directions=1)
    figures = _fit(linear_model(), threshold_data, monitor, epochs=2)["curvature_1"]
    assert figures[0] == figures[1] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"epsilon": 8}, "`epsilon` must be"),
        ({"num_directions": 0}, "`num_directions` must be >= 1"),
        ({"alpha": 0}, "`alpha` must be > 0"),
        ({"alpha": "wide"}, "`alpha` must be"),
        ({"init": "pgd2"}, "Did you mean 'pgd1'"),
        ({"norm": "l3"}, "`norm`"),
    ],
)
def test_refuses_bad_arguments(threshold_data, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        CurvatureMonitor(threshold_data, **arguments)

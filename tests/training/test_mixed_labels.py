"""Labels that are shares of the classes: every method honours them or refuses them by name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf import methods, registry
from soar_tf.errors import InputError
from soar_tf.ops import random
from soar_tf.training.losses import class_accuracy, default_loss, per_example

SHAPE, CLASSES, BATCH = (4, 4, 1), 4, 6
every_method = pytest.mark.parametrize("name", methods.ALL_OBJECTS)


def build(name, **arguments):
    takes = registry.argument_names(methods.ALL_OBJECTS[name])
    wanted = {"steps": 2, "epsilon": 0.1}
    return methods.get(name, **{k: v for k, v in wanted.items() if k in takes}, **arguments)


def network():
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(3, 3, activation="softplus"),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )


def data():
    generator = np.random.default_rng(5)
    shares = generator.dirichlet(np.ones(CLASSES), BATCH).astype("float32")
    return generator.uniform(0, 1, (BATCH, *SHAPE)).astype("float32"), shares


def terms(method, labels):
    keys = random.example_keys(3, tf.range(BATCH), step=0, purpose="training")
    loss_fn = per_example(default_loss())
    x = tf.constant(data()[0])
    return method.terms(
        methods.Forward(network()), x, tf.constant(labels), loss_fn=loss_fn, keys=keys
    )


@every_method
def test_one_hot_labels_mean_the_same_as_classes(name):
    classes = np.arange(BATCH) % CLASSES
    plain = terms(build(name), classes)
    one_hot = terms(build(name), np.eye(CLASSES, dtype="float32")[classes])
    np.testing.assert_allclose(one_hot.loss, plain.loss, rtol=1e-5)
    if plain.penalty is not None:
        np.testing.assert_allclose(one_hot.penalty, plain.penalty, rtol=1e-3, atol=1e-6)


@every_method
def test_a_step_on_shares_is_taken_or_refused_by_fit(name):
    x, y = data()
    model = soar_tf.RobustModel(network(), build(name), seed=1)
    model.compile(keras.optimizers.SGD(0.05), metrics=[class_accuracy()], run_eagerly=True)
    if not model.method.takes_mixed_labels:
        assert name == "mart"
        with pytest.raises(InputError, match="`y` must hold one class per image .* such as mart"):
            model.fit(x, y, verbose=0)
        return
    history = model.fit(x, y, batch_size=BATCH, verbose=0).history
    assert np.isfinite(history["loss"][0])


def test_cross_entropy_of_shares_with_and_without_smoothing():
    x, y = data()
    logits = network()(x).numpy().astype("float64")
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for smoothing in (0.0, 0.1):
        target = (1 - smoothing) * y + smoothing / CLASSES
        got = per_example(default_loss(smoothing))(y, logits)
        np.testing.assert_allclose(got, -(target * log_p).sum(axis=1), rtol=1e-5)


def test_the_adversarial_point_climbs_the_mixed_loss():
    # Mixed half and half with the other labels, the ascent direction is that of the mean loss.
    x, y = data()
    point, loss_fn = tf.constant(x), per_example(default_loss())
    net = network()
    with tf.GradientTape() as tape:
        tape.watch(point)
        log_p = tf.nn.log_softmax(net(point))
        total = -tf.reduce_sum(y * log_p)
    end = np.clip(x + 0.1 * np.sign(tape.gradient(total, point).numpy()), 0, 1)
    got = terms(methods.NFGSM(0.1, noise=0), y).loss
    np.testing.assert_allclose(got, loss_fn(y, net(end)), rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "takes"),
    [
        (methods.Adversarial(), True),
        (methods.Adversarial(inner_loss="margin"), False),
        (methods.SOAR(penalty_loss="dlr"), False),
        (methods.SOAR(inner_loss="cross_entropy"), False),
        (methods.Sum(["fast", "jacobian"]), True),
        (methods.Sum(["fast", "mart"]), False),
    ],
)
def test_which_methods_take_them(method, takes):
    assert method.takes_mixed_labels is takes
    if takes:
        method.check_mixed_labels("`mixup` must be None", 0.2)
        return
    with pytest.raises(InputError, match=r"^`mixup` must be None for .* Received: 0.2.$"):
        method.check_mixed_labels("`mixup` must be None", 0.2)


def test_smoothed_labels_have_one_class():
    x, _ = data()
    smoothed = 0.9 * np.eye(CLASSES, dtype="float32")[np.arange(BATCH) % CLASSES] + 0.025
    model = soar_tf.RobustModel(network(), build("mart"), seed=1)
    model.compile("sgd", run_eagerly=True)
    model.fit(x, smoothed, verbose=0)


def test_accuracy_of_both_forms():
    metric = class_accuracy()
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]], "float32")
    metric.update_state(np.array([0, 2]), logits)
    assert float(metric.result()) == 0.5
    metric.update_state(np.array([[0.6, 0.4, 0.0], [0.3, 0.7, 0.0]], "float32"), logits)
    assert float(metric.result()) == 0.75 and metric.name == "accuracy"

"""Accuracy under attack: closed forms, the pointwise worst case, refusals."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf import attacks
from soar_tf.errors import InputError


def _threshold(x):
    """Two classes, split at a mean pixel of 0.5: class 1 above."""
    margin = tf.reduce_mean(tf.reshape(x, [tf.shape(x)[0], -1]), axis=1) - 0.5
    return tf.stack([-margin, margin], axis=1) * 20.0


X = np.broadcast_to(
    np.linspace(0.05, 0.95, 10, dtype="float32")[:, None, None, None], (10, 2, 2, 1)
)
Y = (X[:, 0, 0, 0] > 0.5).astype(int)


@pytest.mark.parametrize("attack", ["fgsm", "bim", "pgd7", "pgd20"])
@pytest.mark.parametrize(("epsilon", "robust"), [(0.03, 10), (0.1, 8), (0.2, 6), (0.4, 2)])
def test_linf_attacks_reach_the_closed_form(attack, epsilon, robust):
    # The mean pixel moves by epsilon at most: robust exactly if |x - 0.5| > epsilon.
    assert (np.abs(X[:, 0, 0, 0] - 0.5) > epsilon).sum() == robust
    result = soar_tf.evaluate(_threshold, X, Y, [attacks.get(attack, epsilon=epsilon)])
    assert result.clean_accuracy == 1.0
    assert result.attacks[0].robust_accuracy == robust / 10


def test_l2_attack_reaches_the_closed_form():
    # With 4 pixels an l2 radius r moves the mean by r / 2.
    result = soar_tf.evaluate(_threshold, X, Y, ["l2pgd20:epsilon=0.4"])
    assert result.attacks[0].robust_accuracy == (np.abs(X[:, 0, 0, 0] - 0.5) > 0.2).mean()


class _Breaks(attacks.Attack):
    """Breaks the examples in `rows` (positions among the rows handed to it) and no other."""

    def __init__(self, value, epsilon=1.0):
        super().__init__(epsilon)
        self.value = value

    def search(self, logits_fn, x, y, keys):
        near = tf.abs(x[:, :1, :1, :1] - self.value) < 0.01
        return tf.where(near, 1.0 - x, x)


def test_the_worst_case_is_pointwise_and_not_a_minimum_of_means():
    result = soar_tf.evaluate(_threshold, X, Y, [_Breaks(0.05), _Breaks(0.95), _Breaks(0.95)])
    assert [attack.robust_accuracy for attack in result.attacks] == [0.9, 0.9, 0.9]
    assert result.worst_case_accuracy == 0.8


def test_misclassified_examples_count_as_broken():
    labels = Y.copy()
    labels[:3] = 1 - labels[:3]
    result = soar_tf.evaluate(_threshold, X, labels, ["fgsm:epsilon=0"])
    assert result.clean_accuracy == result.attacks[0].robust_accuracy == 0.7


def test_an_attack_that_leaves_its_ball_gives_no_figure():
    with pytest.raises(AssertionError, match="left its threat model"):
        soar_tf.evaluate(_threshold, X, Y, [_Breaks(0.05, epsilon=0.1)])


def test_what_an_attack_claims_is_classified_again():
    class Lies(attacks.Attack):
        def search(self, logits_fn, x, y, keys):
            return x  # unbroken

    result = soar_tf.evaluate(_threshold, X, Y, [Lies()])
    assert result.attacks[0].robust_accuracy == 1.0


def test_progress_and_batches(smooth_network):
    x = np.random.default_rng(0).uniform(0, 1, (11, 2, 2, 1)).astype("float32")
    y = smooth_network.predict(x, verbose=0).argmax(1)
    seen = []
    results = [
        soar_tf.evaluate(
            smooth_network,
            x,
            y,
            ["pgd7:epsilon=0.2"],
            batch_size=size,
            seed=3,
            progress=seen.append,
        )
        for size in (4, 11)
    ]
    np.testing.assert_array_equal(results[0].attacks[0].robust, results[1].attacks[0].robust)
    assert {(call.name, call.total) for call in seen} == {("pgd7:epsilon=0.2", 11)}
    # A batch that takes long reports in between, with `done` as it was.
    finished = [call for call in seen if call.done and call.seconds_left is not None]
    assert [call.done for call in finished] == [4, 8, 11, 11]
    robust = results[0].attacks[0].robust
    assert [call.robust for call in finished[:3]] == [robust[:n].sum() for n in (4, 8, 11)]
    assert finished[2].seconds_left == finished[3].seconds_left == 0.0


def test_an_evaluator_compiles_once_and_draws_equal_noise(smooth_network, images):
    traces = []

    def counted(x):
        traces.append(x.shape)
        return smooth_network(x, training=False)

    x, _ = images
    y = smooth_network.predict(x, verbose=0).argmax(1)
    evaluator = soar_tf.evaluation.Evaluator(counted, ["pgd3:epsilon=0.2"], seed=2, batch_size=5)
    first = evaluator(x, y)
    before = len(traces)
    np.testing.assert_array_equal(evaluator(x, y).attacks[0].robust, first.attacks[0].robust)
    head = smooth_network.layers[-1]
    head.set_weights([-w for w in head.get_weights()])
    assert evaluator(x, y).clean_accuracy != first.clean_accuracy
    assert len(traces) == before > 0


def test_an_evaluator_may_count_logits_that_are_not_finite_as_misclassified():
    def half(x):
        logits = _threshold(x)
        return tf.where(logits[:, :1] > 0.0, np.nan, logits)

    evaluator = soar_tf.evaluation.Evaluator(half, ["fgsm:epsilon=0"], allow_non_finite=True)
    assert evaluator(X, Y).clean_accuracy == 0.5
    with pytest.raises(InputError, match="NaN or infinite"):
        soar_tf.evaluate(half, X, Y, ["fgsm"])


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (X * 255, Y, r"`x` must hold pixels in \[0, 1\]"),
        (X * np.nan, Y, r"`x` must hold pixels in \[0, 1\]"),
        (X[:0], Y[:0], "`x` must hold at least one image"),
        (X, Y + 1, "`y` must hold labels from 0 to 1"),
        (X, Y[:5], "`y` must hold 10 integer labels"),
        (X, Y.astype("float32"), "`y` must hold 10 integer labels"),
    ],
)
def test_refuses_bad_data(x, y, sentence):
    with pytest.raises(InputError, match=sentence):
        soar_tf.evaluate(_threshold, x, y, ["fgsm"])


def test_refuses_outputs_that_are_no_logits():
    with pytest.raises(InputError, match="outputs are probabilities"):
        soar_tf.evaluate(lambda x: tf.nn.softmax(_threshold(x)), X, Y, ["fgsm"])
    with pytest.raises(InputError, match="NaN or infinite"):
        soar_tf.evaluate(lambda x: _threshold(x) / 0.0, X, Y, ["fgsm"])
    with pytest.raises(InputError, match=r"logits \[B, C\]"):
        soar_tf.evaluate(lambda x: x, X, Y, ["fgsm"])


def test_a_keras_model_of_a_users_own_on_color_images_that_are_not_square():
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((6, 4, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
    )
    x = np.random.default_rng(0).uniform(0, 1, (8, 6, 4, 3)).astype("float32")
    y = network.predict(x, verbose=0).argmax(1)
    before = [w.copy() for w in network.get_weights()]
    result = soar_tf.evaluate(network, x, y, ["pgd20:epsilon=0.5"])
    assert result.clean_accuracy == 1.0 and result.worst_case_accuracy < 1.0
    for first, second in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)  # crafting never updates statistics


def test_one_attack_and_one_data_set_may_be_given_as_they_are(digits):
    network, split = soar_tf.networks.mlp(), digits["test"].take(20)
    x, y = split.float_images(), split.labels
    expected = soar_tf.evaluate(network, x, y, ["fgsm"])
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(6)
    for data, attack in (
        (split, "fgsm"),
        (batches, soar_tf.attacks.FGSM()),
    ):
        found = soar_tf.evaluate(network, data, attacks=attack)
        assert found.worst_case_accuracy == expected.worst_case_accuracy
        np.testing.assert_array_equal(found.clean, expected.clean)


def test_a_network_of_one_answer_and_labels_of_one_class_are_told(digits):
    split = digits["test"].take(30)
    x, y = split.float_images(), split.labels

    def constant(x):
        first = 3.0 * tf.one_hot(tf.zeros(tf.shape(x)[0], tf.int32), 10)
        return first + 0.1 * x[:, 4, 4, :] * tf.range(10.0)

    found = soar_tf.evaluate(constant, x, y, "fgsm")
    assert "constant" in [finding.name for finding in found.findings]
    found = soar_tf.evaluate(soar_tf.networks.mlp(), x, np.full(30, 3), "fgsm")
    assert "one_class" in [finding.name for finding in found.findings]

"""Transfer: closed forms on linear networks, who counts as broken, refusals."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from soar_tf import attacks
from soar_tf.errors import InputError
from soar_tf.evaluation import transfer_matrix
from soar_tf.evaluation.transfer import has_fixed_work


def linear(weights, classes=2):
    """Two classes, split where the weighted sum of the pixels is 0 (pixels centred at 0.5)."""
    weights = tf.constant(weights, tf.float32)

    def logits_fn(x):
        score = tf.linalg.matvec(tf.reshape(x, [tf.shape(x)[0], -1]) - 0.5, weights)
        return tf.stack([-score, score, *[score * 0 - 99.0] * (classes - 2)], axis=1)

    return logits_fn


# Pixels (a, b); the first network sees a alone, the second b alone, the third their sum.
A, B, BOTH = linear([1.0, 0.0]), linear([0.0, 1.0]), linear([1.0, 1.0])
GRID = np.array([0.1, 0.3, 0.45, 0.55, 0.7, 0.9], "float32")
X = np.array([(a, a) for a in GRID], "float32")
Y = (X[:, 0] > 0.5).astype(int)


def test_linear_networks_transfer_as_their_weights_say():
    result = transfer_matrix(
        {"a": A, "b": B, "both": BOTH}, {"a": A, "both": BOTH}, X, Y, "bim:epsilon=0.08"
    )
    # White-box, the pixels that count move by 0.08: the two images within 0.05 of 0.5 break.
    np.testing.assert_allclose(result.white_box, [4 / 6, 4 / 6])
    np.testing.assert_allclose(
        result.accuracy,
        [
            [4 / 6, 1.0],  # a moves one pixel: the sum needs 0.1
            [1.0, 1.0],  # b's attack moves nothing that a sees: no transfer
            [4 / 6, 4 / 6],  # both's attack moves a's pixel as a's own does
        ],
    )


def test_an_identical_copy_is_hit_exactly_as_hard(images):
    x, y = images
    keras.utils.set_random_seed(1)
    one = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    two = keras.models.clone_model(one)
    two.set_weights(one.get_weights())
    y = one.predict(x, verbose=0).argmax(1)
    result = transfer_matrix({"one": one}, {"one": one, "two": two}, x, y, "pgd7:epsilon=0.2")
    assert result.accuracy[0, 0] == result.accuracy[0, 1] == result.white_box[0] < 1.0
    assert result.white_box[0] == result.white_box[1]
    assert result.masked() == []


def test_images_that_the_target_misclassifies_count_as_broken():
    labels = Y.copy()
    labels[0] = 1 - labels[0]  # far from the boundary: no attack changes anything
    result = transfer_matrix({"b": B}, {"a": A}, X, labels, "bim:epsilon=0.01")
    np.testing.assert_allclose(result.clean_accuracy, [5 / 6])
    np.testing.assert_allclose(result.accuracy, [[5 / 6]])
    # Even if the attack on the source happens to turn one right for the target.
    reverse = linear([-1.0, 0.0])
    flipped = transfer_matrix({"r": reverse}, {"a": A}, X[2:3], 1 - Y[2:3], "bim:epsilon=0.1")
    assert flipped.accuracy[0, 0] == 0.0


def test_images_that_the_source_misclassifies_are_attacked_too():
    # The source calls every image class 1. Its gradient still leads the target astray.
    source = linear([1.0, 0.0])

    def always_one(x):
        return source(x) + tf.constant([[0.0, 5.0]])

    near = X[2:3]
    result = transfer_matrix({"s": always_one}, {"a": A}, near, Y[2:3], "bim:epsilon=0.1")
    assert result.clean_accuracy[0] == 1.0 and result.source_clean_accuracy[0] == 0.0
    assert result.accuracy[0, 0] == 0.0


def test_the_last_iterate_is_what_transfers():
    # The target's boundary lies behind the source's: an early stop would not reach it.
    def source(x):
        return A(x)

    def target(x):
        return A(x - 0.1 * (1.0 if Y[3] == 0 else -1.0))

    attack = attacks.BIM(epsilon=0.2, steps=10)
    result = transfer_matrix({"s": source}, {"t": target}, X[3:4], Y[3:4], attack)
    assert result.fixed_work and result.accuracy[0, 0] == 0.0
    early = attack(source, X[3:4], Y[3:4]).numpy()
    assert target(tf.constant(early)).numpy().argmax() == Y[3]  # what `search` gives does not


def test_an_attack_without_fixed_work_is_said_to_be_one():
    square = attacks.get("square:queries=20,epsilon=0.1")
    assert not has_fixed_work(square)
    result = transfer_matrix({"a": A}, {"a": A}, X, Y, square)
    assert not result.fixed_work and result.accuracy[0, 0] == pytest.approx(4 / 6)


def test_transfer_that_beats_white_box_is_named():
    def masked(x):
        return A(tf.stop_gradient(x))

    result = transfer_matrix({"a": A}, {"a": A, "m": masked}, X, Y, "bim:epsilon=0.1")
    assert result.white_box[1] == 1.0 and result.accuracy[0, 1] == pytest.approx(4 / 6)
    assert result.masked() == [("a", "m")]


def test_the_figures_do_not_depend_on_the_batch_size_and_are_json(smooth_network, images):
    x, y = images
    results = [
        transfer_matrix(
            {"s": smooth_network},
            {"t": smooth_network},
            x,
            y,
            "pgd3:epsilon=0.3",
            batch_size=size,
            seed=4,
        )
        for size in (5, 12)
    ]
    assert results[0].to_dict() == results[1].to_dict()
    stored = json.loads(json.dumps(results[0].to_dict()))
    assert stored["accuracy"]["s"]["t"] == stored["white_box"]["t"]
    assert (stored["n"], stored["seed"], stored["epsilon"]) == (12, 4, 0.3)


def test_refusals(smooth_network):
    with pytest.raises(InputError, match="`sources` must be a mapping"):
        transfer_matrix({}, {"a": A}, X, Y, "fgsm")
    with pytest.raises(InputError, match="`targets` must be a mapping"):
        transfer_matrix({"a": A}, [A], X, Y, "fgsm")
    with pytest.raises(InputError, match="a with 2 and c with 3"):
        transfer_matrix({"a": A}, {"c": linear([1.0, 0.0], 3)}, X, Y, "fgsm")
    with pytest.raises(InputError, match="must take the same images"):
        transfer_matrix({"a": A}, {"k": smooth_network}, X, Y, "fgsm")
    with pytest.raises(InputError, match="outputs are probabilities"):
        transfer_matrix({"a": A}, {"p": lambda x: tf.nn.softmax(A(x))}, X, Y, "fgsm")
    with pytest.raises(InputError, match="labels from 0 to 1"):
        transfer_matrix({"a": A}, {"a": A}, X, Y + 1, "fgsm")

"""The finding that another order of the classes would explain the labels."""

import numpy as np
import pytest

import soar_tf
from soar_tf.evaluation import class_order

ORDER = np.array([int(name) for name in sorted(map(str, range(12)))])  # 0, 1, 10, 11, 2, ...


def answers(labels, share, seed=0):
    """The labels' numbers in another order, with a share of them wrong."""
    random = np.random.RandomState(seed)
    noise = random.randint(0, 12, len(labels))
    return np.where(random.uniform(size=len(labels)) < share, ORDER[labels], noise)


@pytest.mark.parametrize("share", [1.0, 0.8, 0.6])
def test_numbered_folders_in_the_order_of_text(share):
    labels = np.repeat(np.arange(12), 10)
    (finding,) = class_order.findings(answers(labels, share), labels)
    assert finding.name == "class_order"
    assert not finding.unusable
    assert "The network seems to know class 2 as 10, 3 as 11, 4 as 2" in finding.message


@pytest.mark.parametrize(
    "predictions, labels",
    [
        (np.arange(120) % 12, np.arange(120) % 12),  # right
        (np.zeros(120, int), np.arange(120) % 12),  # constant
        (np.arange(120) % 12 // 2, np.arange(120) % 12),  # two classes as one
        (np.random.RandomState(0).randint(0, 12, 120), np.arange(120) % 12),  # untrained
        (ORDER, np.arange(12)),  # too few
        ((np.arange(30) + 1) % 10, np.arange(30) % 10),  # three images of a class
    ],
)
def test_other_networks_get_no_finding(predictions, labels):
    assert list(class_order.findings(predictions, labels)) == []


def test_a_mediocre_network_with_two_classes_swapped_by_chance_gets_none():
    labels = np.repeat(np.arange(10), 20)
    predictions = labels.copy()
    predictions[labels == 3], predictions[labels == 5] = 5, 3
    assert list(class_order.findings(predictions, labels)) == []  # 80 % are right as they are


def test_evaluation_says_it():
    x = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0).reshape(40, 2, 2, 1)
    order = np.array([2, 0, 3, 1])

    def network(images):
        import tensorflow as tf

        return tf.gather(10.0 * tf.reshape(images, [-1, 4]), order, axis=1)

    result = soar_tf.evaluate(network, x, np.repeat(np.arange(4), 10), ["fgsm:epsilon=0.1"])
    assert [f.name for f in result.findings if f.name == "class_order"] == ["class_order"]
    right = soar_tf.evaluate(network, x, np.argsort(order).repeat(10), ["fgsm:epsilon=0.1"])
    assert "class_order" not in [finding.name for finding in right.findings]

"""No mask of the gallery gets a flattering figure past the adaptive attack, or past the probe."""

import keras
import numpy as np
import pytest
from masks import MASKS

import soar_tf

EPSILON = 0.2
ATTACKS = [f"pgd20:epsilon={EPSILON}"]
# A few of every kind, for the quick half: each takes seconds.
QUICK = ("logits times 10,000", "quantised, 16 levels", "another network's gradient", "thermometer")
# Random inputs blur the loss; the rest is what sampling 100 images allows.
TOLERANCE = 0.03
# True slopes of a function with teeth: only a search without gradients gets past them.
SEARCHED_ONLY = ("sawtooth",)
COUNT = 100


@pytest.fixture(scope="module")
def bare(digits):
    """A network of middling robustness, its logits function, and what withstands AutoAttack."""
    keras.utils.set_random_seed(0)
    network = soar_tf.networks.cnn2(input_shape=(8, 8, 1), num_classes=10, width=0.5)
    method = soar_tf.methods.Adversarial(epsilon=0.1, steps=2)
    model = soar_tf.RobustModel(network, method)
    model.compile(keras.optimizers.Adam(5e-3))
    train = digits["train"]
    model.fit(train.float_images(), train.labels, epochs=10, batch_size=64, verbose=0)
    return soar_tf.attacks.as_logits_fn(network)


@pytest.fixture(scope="module")
def images(digits):
    test = digits["test"].take(COUNT)
    return test.float_images(), test.labels


@pytest.fixture(scope="module")
def truth(bare, images):
    found = soar_tf.evaluate(bare, *images, [f"autoattack:epsilon={EPSILON}"])
    assert found.findings == ()
    assert found.clean_accuracy > 0.9 and found.worst_case_accuracy < 0.5
    return found.worst_case_accuracy


@pytest.mark.parametrize("name", QUICK)
def test_a_masked_network_is_told_and_attacked_through_its_mask(name, bare, images):
    x, y = (part[:40] for part in images)
    masked = soar_tf.evaluate(MASKS[name](bare), x, y, ATTACKS)
    assert masked.hides_gradients
    plain, adaptive = masked.attacks
    assert adaptive.name == "adaptive"
    assert plain.robust_accuracy > 0.7
    assert masked.worst_case_accuracy < 0.4


def test_an_honest_network_gets_no_adaptive_attack_unless_it_is_asked_for(bare, images):
    x, y = (part[:20] for part in images)
    assert [a.name for a in soar_tf.evaluate(bare, x, y, ATTACKS).attacks] == ATTACKS
    asked = soar_tf.evaluate(bare, x, y, ATTACKS, adaptive=True)
    assert [attack.name for attack in asked.attacks] == [*ATTACKS, "adaptive"]
    stages = [stage["name"] for stage in asked.attacks[1].stages]
    assert stages[0] == "rescaled" and stages[-1] == "square" and "transfer" not in stages


def test_a_source_is_transferred_from(bare, images):
    x, y = (part[:20] for part in images)
    found = soar_tf.evaluate(MASKS["stopped outputs"](bare), x, y, [], adaptive=True, source=bare)
    assert "transfer" in [stage["name"] for stage in found.attacks[0].stages]


@pytest.mark.slow
@pytest.mark.parametrize("name", MASKS)
def test_no_mask_flatters(name, bare, images, truth):
    masked = MASKS[name](bare)
    reference = soar_tf.evaluate(masked, *images, [f"autoattack:epsilon={EPSILON}"], adaptive=False)
    if not reference.hides_gradients:  # what only a search without gradients can tell
        report = soar_tf.evaluation.masking_report(masked, *images, epsilon=EPSILON)
        assert report.verdict == "fail"
    found = soar_tf.evaluate(masked, *images, ATTACKS, adaptive=True)
    assert found.worst_case_accuracy <= reference.worst_case_accuracy + 1e-9
    if name not in SEARCHED_ONLY:
        assert found.worst_case_accuracy - truth <= TOLERANCE + 1e-9
    assert found.clean_accuracy == pytest.approx(
        soar_tf.evaluate(bare, *images, []).clean_accuracy, abs=0.1
    )


HONEST = {
    "linear": lambda: [keras.layers.Flatten()],
    "batch norm": lambda: [
        keras.layers.Conv2D(8, 3),
        keras.layers.BatchNormalization(momentum=0.5),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
    ],
    "dropout": lambda: [keras.layers.Flatten(), keras.layers.Dropout(0.3)],
    "tanh": lambda: [keras.layers.Flatten(), keras.layers.Dense(32, "tanh")],
    "max pooling": lambda: [
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
    ],
    "depthwise": lambda: [
        keras.layers.DepthwiseConv2D(3, depth_multiplier=4, activation="relu6"),
        keras.layers.Flatten(),
    ],
    "layer norm": lambda: [
        keras.layers.Flatten(),
        keras.layers.Dense(32, "gelu"),
        keras.layers.LayerNormalization(),
    ],
    "recurrent": lambda: [keras.layers.Reshape((8, 8)), keras.layers.LSTM(16)],
}


@pytest.mark.parametrize("method", ["standard", "adversarial", "trades", "soar"])
@pytest.mark.parametrize("name", ["linear", "batch norm", "dropout"])
def test_honest_networks_are_not_blamed_whatever_trained_them(name, method, digits, images):
    keras.utils.set_random_seed(1)
    assert _findings(name, method, digits, images) == ()


@pytest.mark.parametrize("name", sorted(set(HONEST) - {"linear", "batch norm", "dropout"}))
def test_honest_layers_are_not_blamed(name, digits, images):
    keras.utils.set_random_seed(1)
    assert _findings(name, "standard", digits, images) == ()


def _findings(name, method, digits, images):
    network = keras.Sequential([keras.Input((8, 8, 1)), *HONEST[name](), keras.layers.Dense(10)])
    arguments = {} if method == "standard" else {"epsilon": 0.1}
    model = soar_tf.RobustModel(network, soar_tf.methods.get(method, **arguments))
    model.compile(keras.optimizers.Adam(1e-2))
    train = digits["train"].take(256)
    model.fit(train.float_images(), train.labels, epochs=2, batch_size=64, verbose=0)
    x, y = images
    return soar_tf.probe(network, x, np.asarray(y)).findings

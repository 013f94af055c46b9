"""Other libraries attack a trained model as it is, and find what we find.

Runs where Foolbox or ART is installed: `pip install '.[interop]'`.
"""

import importlib.util

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf import attacks, datasets

EPSILON, COUNT = 0.1, 200


def needs(package):
    """Skips before the fixtures train anything."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def trained():
    """A model after short adversarial training on the digits, and test images."""
    digits = datasets.load("digits")
    keras.utils.set_random_seed(0)
    network = soar_tf.networks.cnn2(input_shape=(8, 8, 1), num_classes=10, width=0.25)
    model = soar_tf.RobustModel(network, soar_tf.methods.get("adversarial", steps=2, epsilon=0.1))
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    train, steps = datasets.training_pipeline(digits["train"], 64, seed=0, epochs=6)
    model.fit(train, epochs=6, steps_per_epoch=steps, verbose=0)
    test = digits["test"].take(COUNT)
    return model, test.float_images(), test.labels


@pytest.fixture(scope="module")
def ours(trained):
    """Our accuracy under each attack."""
    model, x, y = trained
    step = {"epsilon": EPSILON, "step_size": EPSILON / 4}
    tried = [
        attacks.FGSM(EPSILON),
        attacks.PGD(steps=20, **step),
        attacks.PGD(2 * EPSILON, "l2", steps=20, step_size=EPSILON / 4, random_start=False),
    ]
    result = soar_tf.evaluate(model.network, x, y, tried)
    accuracies = [attack.robust_accuracy for attack in result.attacks]
    assert result.clean_accuracy > 0.8 > accuracies[0] >= accuracies[1] > 0.05
    return dict(zip(("fgsm", "pgd", "l2"), accuracies, strict=True))


def assert_same(accuracies, ours):
    """FGSM has no random start: one image may be on the border. PGD draws another one."""
    assert accuracies["fgsm"] == pytest.approx(ours["fgsm"], abs=1.01 / COUNT)
    assert accuracies["pgd"] == pytest.approx(ours["pgd"], abs=0.02)
    if "l2" in accuracies:
        assert accuracies["l2"] == pytest.approx(ours["l2"], abs=0.02)


@needs("foolbox")
def test_foolbox_takes_the_model_as_it_is(trained, ours):
    import foolbox
    import tensorflow as tf

    model, x, y = trained
    fmodel = foolbox.TensorFlowModel(model, bounds=(0, 1))
    step = {"abs_stepsize": EPSILON / 4, "steps": 20}
    tried = {
        "fgsm": (foolbox.attacks.LinfFastGradientAttack(), EPSILON),
        "pgd": (foolbox.attacks.LinfPGD(**step), EPSILON),
        "l2": (foolbox.attacks.L2PGD(**step, random_start=False), 2 * EPSILON),
    }
    accuracies = {}
    for name, (attack, epsilon) in tried.items():
        images, labels = tf.constant(x), tf.constant(y, tf.int64)
        _, _, fooled = attack(fmodel, images, labels, epsilons=epsilon)
        accuracies[name] = 1 - float(np.mean(fooled))
    assert_same(accuracies, ours)


@needs("art")
def test_art_takes_the_model_as_it_is(trained, ours):
    from art.attacks import evasion
    from art.estimators.classification import TensorFlowV2Classifier

    model, x, y = trained
    classifier = TensorFlowV2Classifier(
        model,
        nb_classes=10,
        input_shape=x.shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )
    pgd = {"eps": EPSILON, "eps_step": EPSILON / 4, "max_iter": 20, "batch_size": COUNT}
    tried = {
        "fgsm": evasion.FastGradientMethod(classifier, eps=EPSILON, batch_size=COUNT),
        "pgd": evasion.ProjectedGradientDescent(
            classifier, num_random_init=1, verbose=False, **pgd
        ),
    }
    accuracies = {}
    for name, attack in tried.items():
        predicted = classifier.predict(attack.generate(x, np.asarray(y))).argmax(1)
        accuracies[name] = float(np.mean(predicted == y))
    assert_same(accuracies, ours)

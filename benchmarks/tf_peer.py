"""The peers of `benchmarks.attacks` on TensorFlow: Foolbox, ART, CleverHans, on the same network.

A worker for `common.Peer`. A call attacks all images once and reports times and accuracy.
"""

import contextlib
import sys

import numpy as np

from benchmarks import common

EPSILON = {"linf": 8 / 255, "l2": 60 / 255}
L2_STEP = 2.5 * EPSILON["l2"] / 100
BATCH = 250


def main():
    """Loads a network and images and serves the attacks."""
    import keras

    network = keras.models.load_model(sys.argv[1], compile=False)
    arrays = np.load(sys.argv[2])
    x, y = arrays["x"], arrays["y"]
    attacks = {}
    for build in (foolbox_attacks, art_attacks, cleverhans_attacks):
        with contextlib.suppress(ImportError):
            attacks |= build(network)

    def run(attack):
        def once():
            found = []
            times = common.timed(lambda: found.extend(attack(*batch) for batch in batches(x, y)))
            predicted = network.predict(np.concatenate(found), batch_size=BATCH, verbose=0)
            return {**times, "accuracy": 100 * float(np.mean(predicted.argmax(1) == y))}

        return once

    packages = ("foolbox", "adversarial-robustness-toolbox", "cleverhans", "tensorflow", "keras")
    functions = {name: run(attack) for name, attack in attacks.items()}
    common.serve(functions, common.versions(*packages))


def batches(x, y):
    """Pieces of `BATCH` images."""
    for start in range(0, len(x), BATCH):
        yield x[start : start + BATCH], y[start : start + BATCH]


def foolbox_attacks(network):
    """Foolbox's attacks as functions of images and labels."""
    import foolbox
    import tensorflow as tf

    fmodel = foolbox.TensorFlowModel(network, bounds=(0, 1))
    library = foolbox.attacks

    def function(attack, epsilon):
        def run(x, y):
            _, found, _ = attack(fmodel, tf.constant(x), tf.constant(y), epsilons=epsilon)
            return found.numpy()

        return run

    l2 = library.L2PGD(steps=100, abs_stepsize=L2_STEP, random_start=True)
    linf = library.LinfPGD(steps=20, abs_stepsize=2 / 255)
    return {
        "foolbox fgsm": function(library.LinfFastGradientAttack(), EPSILON["linf"]),
        "foolbox pgd20": function(linf, EPSILON["linf"]),
        "foolbox l2pgd100": function(l2, EPSILON["l2"]),
    }


def art_attacks(network):
    """ART's attacks as functions of images and labels."""
    import keras
    from art.attacks import evasion
    from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        network,
        nb_classes=10,
        input_shape=network.input_shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )
    common_arguments = {"batch_size": BATCH, "verbose": False, "num_random_init": 1}
    linf = evasion.ProjectedGradientDescent(
        classifier, eps=EPSILON["linf"], eps_step=2 / 255, max_iter=20, **common_arguments
    )
    l2 = evasion.ProjectedGradientDescent(
        classifier, norm=2, eps=EPSILON["l2"], eps_step=L2_STEP, max_iter=100, **common_arguments
    )
    fgsm = evasion.FastGradientMethod(classifier, eps=EPSILON["linf"], batch_size=BATCH)
    return {"art fgsm": fgsm.generate, "art pgd20": linf.generate, "art l2pgd100": l2.generate}


def cleverhans_attacks(network):
    """CleverHans's attacks (its gradient is compiled) as functions of images and labels."""
    import tensorflow as tf
    from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    def pgd(norm, epsilon, step, steps):
        def run(x, y):
            found = projected_gradient_descent(
                network,
                tf.constant(x),
                epsilon,
                step,
                steps,
                norm,
                clip_min=0.0,
                clip_max=1.0,
                y=tf.constant(y),
                rand_init=True,
                sanity_checks=False,
            )
            return found.numpy()

        return run

    def fgsm(x, y):
        found = fast_gradient_method(
            network,
            tf.constant(x),
            EPSILON["linf"],
            np.inf,
            clip_min=0.0,
            clip_max=1.0,
            y=tf.constant(y),
        )
        return found.numpy()

    return {
        "cleverhans fgsm": fgsm,
        "cleverhans pgd20": pgd(np.inf, EPSILON["linf"], 2 / 255, 20),
        "cleverhans l2pgd100": pgd(2, EPSILON["l2"], L2_STEP, 100),
    }


if __name__ == "__main__":
    main()

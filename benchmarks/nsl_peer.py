"""A peer of `benchmarks.step`: Neural Structured Learning's PGD-7 training, under legacy Keras.

A worker for `common.Peer`; it needs neural-structured-learning and tf-keras (Keras 2). NSL trains
on the images and on their adversarial neighbours together, which is one training pass more than
PGD-7 training on the adversarial images alone.
"""

import os
import sys
import types

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported

import numpy as np

from benchmarks import common

EPSILON, STEP = 8 / 255, 2 / 255


def main():
    """Builds the steps and serves them."""
    count = int(sys.argv[1])
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 1, (count, 32, 32, 3)).astype("float32")
    y = generator.integers(0, 10, count)
    functions = {
        "NSL pgd7, legacy Keras": nsl_step(x, y),
        "legacy Keras standard": plain_step(x, y),
    }
    timed = {name: lambda step=step: common.timed(step) for name, step in functions.items()}
    common.serve(timed, common.versions("neural-structured-learning", "tf-keras"))


def cnn4():
    """The network of `soar_tf.networks.cnn4`."""
    import tf_keras as keras

    layers = [keras.Input((32, 32, 3), name="image"), keras.layers.Rescaling(4.0, offset=-2.0)]
    for channels in (32, 64):
        layers += [
            keras.layers.Conv2D(channels, 3, activation="relu"),
            keras.layers.Conv2D(channels, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
        ]
    layers += [
        keras.layers.Flatten(),
        keras.layers.Dense(512, activation="relu"),
        keras.layers.Dense(10),
    ]
    return keras.Sequential(layers)


def compiled(model):
    """The model with the step's optimizer and loss."""
    import tf_keras as keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-6, momentum=0.9), loss)
    return model


def plain_step(x, y):
    """A step of plain training."""
    import tensorflow as tf

    model, batch = compiled(cnn4()), (tf.constant(x), tf.constant(y))
    function = tf.function(lambda: model.train_step(batch))
    return lambda: function()["loss"].numpy()


def nsl_step(x, y):
    """A step of NSL's adversarial regularization with PGD-7."""
    import tensorflow as tf

    # NSL imports it for a part that is not used here; TensorFlow has dropped it.
    tf.estimator = types.ModuleType("estimator")
    import neural_structured_learning as nsl

    config = nsl.configs.make_adv_reg_config(
        multiplier=1.0,
        adv_step_size=STEP,
        adv_grad_norm="infinity",
        pgd_iterations=7,
        pgd_epsilon=EPSILON,
        clip_value_min=0.0,
        clip_value_max=1.0,
    )
    model = nsl.keras.AdversarialRegularization(cnn4(), label_keys=["label"], adv_config=config)
    batch = {"image": tf.constant(x), "label": tf.constant(y)}
    compiled(model)(batch)  # which makes its losses
    function = tf.function(lambda: model.train_step((batch,)))
    return lambda: function()["loss"].numpy()


if __name__ == "__main__":
    main()

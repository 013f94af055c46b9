"""The networks, images and compiled train steps that the benchmarks run."""

import keras
import numpy as np
import tensorflow as tf

import soar_tf
from benchmarks import common, flops

NETWORKS = {"cnn4": ("cnn4", {}), "resnet18-narrow": ("resnet18", {"width": 0.25})}


def network(name, size=32, **arguments):
    """A fresh network; equal seeds give equal weights."""
    keras.utils.set_random_seed(0)
    builder, own = NETWORKS[name]
    shape = (size, size, 3)
    return soar_tf.networks.get(builder, input_shape=shape, num_classes=10, **{**own, **arguments})


def images(count, size=32):
    """Random images and labels: a step costs what it costs on any."""
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 1, (count, size, size, 3)).astype("float32")
    return x, generator.integers(0, 10, count)


def cifar10(data_dir, count):
    """CIFAR-10's first training images and labels, for steps whose cost depends on them."""
    splits = soar_tf.datasets.load("cifar10", data_dir=data_dir, splits=("train",))
    train = splits["train"].take(count)
    return train.float_images(), train.labels


def methods():
    """Every registered method with its defaults, PGD-7 and SOAR without its clip."""
    made = {name: soar_tf.methods.get(name) for name in soar_tf.methods.ALL_OBJECTS}
    made["adversarial"] = soar_tf.methods.get("adversarial", steps=7)
    made["soar-unclipped"] = soar_tf.methods.SOAR(penalty_clipnorm=None)
    if "penalty_fraction" in soar_tf.methods.SOAR().get_config():
        made["soar-quarter"] = soar_tf.methods.SOAR(penalty_fraction=0.25)
    return made


class Step:
    """A method's train step on a fixed batch: call it to run and time one.

    Args:
        method: A `soar_tf.methods.Method`.
        net: The network.
        batch: `(x, y)`.
        micro_batch: See `soar_tf.RobustModel`.
        skip_clipped: See `soar_tf.RobustModel`. Operations can be counted only without: with it
            their number depends on the images.
    """

    def __init__(self, method, net, batch, micro_batch=None, skip_clipped=False):
        self.model = soar_tf.RobustModel(
            net, method, micro_batch=micro_batch, skip_clipped=skip_clipped
        )
        self.model.compile(keras.optimizers.SGD(1e-6, momentum=0.9), jit_compile=False)
        self.model.optimizer.build(self.model.trainable_variables)
        self.batch = tuple(tf.constant(part) for part in batch)
        self.function = tf.function(lambda x, y: self.model.train_step((x, y)), autograph=False)
        self.graph = self.function.get_concrete_function(*self.batch).graph

    def flops(self):
        """Operations of a step's convolutions and matrix products."""
        return flops.of_graph(self.graph)

    def __call__(self):
        return common.timed(lambda: self.function(*self.batch)["loss"].numpy())

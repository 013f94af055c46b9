"""Hostile model files for the tests: each could write into the folder it is given, no further."""

import copy
import json
import zipfile

import keras
import tensorflow as tf


def function(module, name):
    """A function as a Keras configuration names it."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def instance(module, kind, /, **config):
    """An object as a Keras configuration names it."""
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def network():
    """A small network with a layer that calls a function, named `door`."""
    x = inputs = keras.Input((4, 4, 1))
    x = keras.layers.Lambda(keras.ops.relu, name="door")(x)
    x = keras.layers.Conv2D(2, 3, activation="relu", kernel_regularizer="l2", name="conv")(x)
    outputs = keras.layers.Dense(3, name="top")(keras.layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def rewritten(source, target, change):
    """Copies a `.keras` file; `change` gets its configuration and, by name, its layers."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    layers = {layer["config"]["name"]: layer for layer in config["config"]["layers"]}
    config = change(config, layers) or config
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in {**members, "config.json": json.dumps(config)}.items():
            archive.writestr(name, data)
    return target


def calls(called, *arguments, **named):
    """A change of what the layer `door` calls and, if any are given, of its arguments."""

    def change(config, layers):
        layers["door"]["config"]["function"] = called
        if arguments or named:
            layers["door"]["inbound_nodes"] = [{"args": list(arguments), "kwargs": named}]

    return change


def puts(layer, key, value):
    """A change of one setting of one layer."""

    def change(config, layers):
        layers[layer]["config"][key] = value

    return change


def replaces(layer, value):
    """A change that puts another object in the place of a layer."""

    def change(config, layers):
        inbound = copy.deepcopy(layers[layer]["inbound_nodes"])
        layers[layer].clear()
        layers[layer].update(value, name=layer, inbound_nodes=inbound)
        layers[layer].setdefault("config", {})["name"] = layer

    return change


def save_program(folder, effect):
    """A SavedModel that classifies, and runs `effect` on the way."""

    class Program(tf.Module):
        def __init__(self):
            super().__init__()
            self.weights = tf.Variable(tf.ones((16, 3)))

        @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 1])])
        def serve(self, x):
            with tf.control_dependencies(effect()):
                return tf.matmul(tf.reshape(x, (-1, 16)), self.weights)

    program = Program()
    tf.saved_model.save(program, str(folder), signatures={"serving_default": program.serve})
    return folder

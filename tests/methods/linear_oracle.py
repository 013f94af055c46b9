"""A softmax-linear network z = W x + b and its derivatives by formula, in NumPy's float64."""

import keras
import numpy as np
import tensorflow as tf

from soar_tf import methods
from soar_tf.ops import random
from soar_tf.training import losses

SIDE, CLASSES, BATCH = 5, 3, 4


def draw(shape, seed=0, scale=1.0):
    """Normal numbers that float32 holds exactly."""
    numbers = scale * np.random.default_rng(seed).standard_normal(shape)
    return numbers.astype("float32").astype("float64")


W, b = draw((CLASSES, SIDE), 1, 2.0), draw(CLASSES, 2)
# Away from the box's faces, which would cut the perturbations.
x = np.random.default_rng(3).uniform(0.3, 0.7, (BATCH, SIDE)).astype("float32").astype("float64")
y = np.array([0, 1, 2, 1])


def network():
    """The same as a Keras network."""
    net = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(CLASSES)])
    net.set_weights([W.T, b])
    return net


def recording_network(kernel=W):
    """The same as a 1x1 convolution, which is one function in both modes, and its inputs."""
    net = keras.Sequential(
        [
            keras.Input((SIDE,)),
            keras.layers.Reshape((1, SIDE)),
            keras.layers.Conv1D(CLASSES, 1),
            keras.layers.Flatten(),
        ]
    )
    net.set_weights([kernel.T[None], b])
    seen, original = [], net.call

    def call(inputs, **kwargs):
        seen.append(inputs)
        return original(inputs, **kwargs)

    net.call = call
    return net, seen


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def probabilities(x):
    return softmax(x @ W.T + b)


def cross_entropy(x, y=y):
    return -np.log(probabilities(x)[np.arange(len(x)), y])


def gradient(x, y=y):
    """By the chain rule, (p - e_y) W."""
    return (probabilities(x) - np.eye(CLASSES)[y]) @ W


def hessians(x):
    """W^T (diag p - p p^T) W of each example."""
    return [W.T @ (np.diag(p) - np.outer(p, p)) @ W for p in probabilities(x)]


def kl(p, q):
    return (p * np.log(p / q)).sum(axis=1)


def keys(batch=BATCH, seed=11):
    return random.example_keys(seed, tf.range(batch), purpose="test")


def uniform_start(own_keys, epsilon):
    """The start that attacks draw inside an l-infinity ball."""
    return random.uniform(own_keys, (SIDE,), -epsilon, epsilon).numpy().astype("float64")


def sign_steps(start, centre, ascent, steps, step_size, epsilon):
    """Projected sign steps along `ascent(point)`."""
    point = start
    for _ in range(steps):
        point = point + step_size * np.sign(ascent(point))
        point = np.clip(np.clip(point, centre - epsilon, centre + epsilon), 0, 1)
    return point


def step_end(start, epsilon=0.2):
    """Where a single sign step ends from each of the starts of one-step methods."""
    if start == "zero":
        return sign_steps(x, x, gradient, 1, epsilon, epsilon)
    reach, length, ball = {"random": (1, 1.25, epsilon), "noise": (2, 1, 1.0)}[start]
    began = np.clip(x + uniform_start(random.derive(keys(), 0), reach * epsilon), 0, 1)
    return sign_steps(began, x, gradient, 1, length * epsilon, ball)


def terms(method, x=x, y=y, net=None, loss_fn=None, own_keys=None):
    """A method's terms, computed eagerly."""
    loss_fn = loss_fn or losses.per_example(losses.default_loss())
    return method.terms(
        methods.Forward(net or network()),
        tf.constant(x, tf.float32),
        tf.constant(y),
        loss_fn=loss_fn,
        keys=keys(len(x)) if own_keys is None else own_keys,
    )


def quadratic(A):
    """A network and a loss for which the loss of an example is x^T A x / 2."""
    net = keras.Sequential([keras.Input((len(A),)), keras.layers.Dense(len(A), use_bias=False)])
    net.set_weights([np.eye(len(A))])
    A = tf.constant(A, tf.float32)

    def loss_fn(_, outputs):
        return 0.5 * tf.reduce_sum(outputs * tf.matmul(outputs, A, transpose_b=True), axis=1)

    return net, loss_fn

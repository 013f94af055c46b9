"""The base class of all attacks, and the two ways in which an attack is used."""

import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.models.inference import NetworkCache, as_logits_fn
from soar_tf.ops import losses, norms, projections, random
from soar_tf.registry import Configurable
from soar_tf.threat_model import ThreatModel
from soar_tf.validation import (
    LARGEST_INTEGER,
    check_bounds,
    check_choice,
    check_epsilon,
    check_integer,
)

# 12 is the usual radius of l1 results on CIFAR-10.
DEFAULT_EPSILON = {"l1": 12.0}


class Attack(Configurable):
    """An adversary within a threat model: a ball of radius `epsilon` around x, clipped to the box.

    A subclass implements one of two graph functions, both pure and per example:

    * `perturb`, a fixed amount of work on a batch of fixed shape, used in training;
    * `search`, which stops working on an example once it is misclassified and returns that
      iterate, used in evaluation. By default it calls `perturb`.

    Calling the attack runs `search`, compiled.

    Args:
        epsilon: Radius, an absolute distance between images with pixels in `bounds`, e.g. `8 / 255`
            or `"8/255"` with pixels in [0, 1], 8 with pixels in [0, 255]; `None` means 12 for l1
            and 8/255 otherwise.
        norm: `"linf"`, `"l2"` or `"l1"`, if the attack supports it. (Transformations have norm and
            epsilon `None`: only the box bounds them.)
        bounds: `(low, high)` of valid pixels.

    Raises:
        InputError: If an argument is out of range.
    """

    norms = ("linf", "l2")
    # Whether it searches for the nearest misclassified point, regardless of the radius.
    minimum_norm = False
    # False for attacks that use logits only, and so work on files without gradients.
    needs_gradients = True

    def __init__(self, epsilon=8 / 255, norm="linf", bounds=(0.0, 1.0)):
        self.norm = check_choice(norm, "norm", self.norms)
        epsilon = DEFAULT_EPSILON.get(norm, 8 / 255) if epsilon is None else epsilon
        self.bounds = check_bounds(bounds)
        self.epsilon = check_epsilon(epsilon, norm=norm, bounds=self.bounds)

    @property
    def threat_model(self):
        """The attack's `soar_tf.threat_model.ThreatModel`; `None` for transformations."""
        return None if self.norm is None else ThreatModel(self.norm, self.epsilon, self.bounds)

    def perturb(self, logits_fn, x, y, keys, *, loss_fn=losses.cross_entropy):
        """Perturbs a batch with a fixed amount of work.

        Args:
            logits_fn: Callable `[B, ...] -> [B, C]`.
            x: float32 tensor `[B, ...]` inside `bounds`.
            y: Labels, in the form that `loss_fn` takes.
            keys: uint32 tensor `[B, 2]`, the examples' noise keys.
            loss_fn: Per-example loss to increase, `(y, logits) -> [B]`.

        Returns:
            float32 tensor `[B, ...]` inside the ball and the box, without gradient.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `perturb`.")

    def search(self, logits_fn, x, y, keys):
        """Searches for a misclassified point within each example's threat model.

        Args:
            logits_fn: Callable `[n, ...] -> [n, C]` for any n.
            x: float32 tensor `[B, ...]` inside `bounds`, of correctly classified examples.
            y: int tensor `[B]`.
            keys: uint32 tensor `[B, 2]`.

        Returns:
            float32 tensor `[B, ...]`: the first misclassified iterate, or the last iterate.
        """
        return self.perturb(logits_fn, x, y, keys)

    def stages(self):
        """The parts that an evaluation runs one after the other, each on the survivors so far.

        Returns:
            List of `(name, Attack)`; by default, the attack itself.
        """
        return [(type(self).__name__.lower(), self)]

    def __call__(self, network, x, y, *, seed=0, indices=None):
        """Attacks a batch. Examples that are already misclassified are returned unchanged.

        Args:
            network: A `keras.Model` giving logits, or any callable `[B, ...] -> [B, C]`.
            x: `[B, ...]` images inside `bounds`.
            y: int `[B]` labels.
            seed: Seed of the noise.
            indices: int `[B]`, the examples' positions in their data set, which determine their
                noise independently of the batch. Default: 0 to B - 1.

        Returns:
            float32 tensor `[B, ...]`.

        Raises:
            InputError: If `x` has pixels outside `bounds`; not checked inside a graph.

        Example:

        >>> import keras, numpy as np, soar_tf
        >>> network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> attack = soar_tf.attacks.PGD(epsilon=0.1, steps=5)
        >>> x_adv = attack(network, np.full((2, 4), 0.5), np.array([0, 1]), seed=1)
        >>> bool(abs(x_adv - 0.5).numpy().max() <= 0.1 + 1e-6)
        True
        """
        x = tf.cast(x, tf.float32)
        y = tf.cast(y, tf.int64)
        _check_inside(x, self.bounds)
        indices = tf.range(tf.shape(x)[0]) if indices is None else tf.convert_to_tensor(indices)
        seed = check_integer(seed, "seed", maximum=LARGEST_INTEGER)
        keys = random.example_keys(seed, indices, purpose="attack")
        return self._compiled(as_logits_fn(network), x.shape[1:])(x, y, keys)

    def _compiled(self, logits_fn, shape):
        """`attack_survivors` as a graph, traced once per network and image shape."""
        cache = self.__dict__.setdefault("_graphs", NetworkCache())
        graphs, network = cache.of(logits_fn)
        if shape not in graphs:
            graphs[shape] = tf.function(
                lambda x, y, keys: attack_survivors(self, network(), x, y, keys),
                input_signature=(
                    tf.TensorSpec([None, *shape], tf.float32),
                    tf.TensorSpec([None], tf.int64),
                    tf.TensorSpec([None, 2], tf.uint32),
                ),
                autograph=False,
            )
        return graphs[shape]


def _check_inside(x, bounds):
    if not tf.executing_eagerly() or tf.size(x) == 0:
        return
    low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
    if not (low >= bounds[0] and high <= bounds[1]):  # NaN counts as outside
        raise InputError(
            f"`x` must hold pixels in [{bounds[0]:g}, {bounds[1]:g}], the attack's `bounds`. "
            f"Received values from {low:g} to {high:g}."
        )


def attack_survivors(attack, logits_fn, x, y, keys):
    """Runs an attack's `search` on the correctly classified examples; a graph function.

    Args:
        attack: An `Attack`.
        logits_fn: Callable `[n, ...] -> [n, C]`.
        x: float32 tensor `[B, ...]`.
        y: int tensor `[B]`.
        keys: uint32 tensor `[B, 2]`.

    Returns:
        float32 tensor `[B, ...]`; the other examples are unchanged.
    """
    survivors = tf.where(~misclassified(y, logits_fn(x)))[:, 0]
    x_adv = tf.cond(
        tf.size(survivors) > 0,
        lambda: search_finite(attack, logits_fn, *gather(survivors, x, y, keys)),
        lambda: tf.gather(x, survivors),
    )
    return tf.stop_gradient(tf.tensor_scatter_nd_update(x, survivors[:, None], x_adv))


def search_finite(attack, logits_fn, x, y, keys):
    """An attack's `search`, with results that are not finite replaced by `x`."""
    x_adv = attack.search(logits_fn, x, y, keys)
    finite = tf.reduce_all(tf.math.is_finite(norms.flatten(x_adv)), axis=1)
    return tf.where(norms.per_example(finite, x), x_adv, x)


def misclassified(y, logits):
    """Whether each example is misclassified, bool `[B]`; NaN logits count as misclassified."""
    wrong = tf.argmax(logits, axis=1, output_type=y.dtype) != y
    return wrong | tf.reduce_any(~tf.math.is_finite(logits), axis=1)


def gather(indices, *tensors):
    """Gathers the same rows from several tensors."""
    return tuple(tf.gather(tensor, indices) for tensor in tensors)


def random_start(keys, x, epsilon, norm, bounds):
    """A uniform point in each example's ball, clipped to the box."""
    noise = projections.random_in_ball(keys, x.shape[1:], epsilon, norm)
    return tf.clip_by_value(x + noise, *bounds)


def random_on_sphere(keys, x, radius, norm, bounds):
    """A random point at distance `radius` from each example, clipped to the box."""
    if norm == "linf":
        noise = random.uniform(keys, x.shape[1:], -1.0, 1.0)
    else:
        noise = random.normal(keys, x.shape[1:])
    size = norms.per_example(radius / norms.norm(noise, norm), x)
    return tf.clip_by_value(x + size * noise, *bounds)

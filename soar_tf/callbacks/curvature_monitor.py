"""SOAR's penalty during training, estimated from one direction and from many."""

import math

import tensorflow as tf

from soar_tf.callbacks.epoch_callback import EpochCallback
from soar_tf.evaluation import PerExample
from soar_tf.methods import SOAR, Forward
from soar_tf.ops import curvature, gradients, losses, random
from soar_tf.validation import check_integer, check_number


class CurvatureMonitor(EpochCallback):
    r"""Logs the penalty R of SOAR's eq. 11, estimated from 1 and from m random directions.

    It writes `curvature_1` and `curvature_<m>`, such as `curvature_100`: the mean over the examples
    of the unclipped $R(x')$ of the cross-entropy, at the point x' defined by `init`, regardless of
    the training method (Ma et al. 2020, arXiv:2004.01832, figure 2: one direction estimates the
    penalty well). The directions and steps are the same in every epoch. The network is in inference
    mode and in float32.

    Args:
        data: Validation data in [0, 1]: arrays `(x, y)`, a `tf.data.Dataset` of batches, or a
            `soar_tf.datasets.Split`.
        epsilon: Radius of the threat model, in units of the pixel range; `None` for that of the
            `RobustModel`'s method, or 8/255.
        num_directions: Number m of directions, in a loop in one compiled graph.
        alpha: Largest finite-difference step h, an l2 distance.
        init: The point x': `"pgd1"`, `"random"` or `"zero"`, see `soar_tf.methods.SOAR`.
        norm: Norm of the threat model, `"linf"` or `"l2"`; `None` for that of the method, or
            `"linf"`.
        every: Number of epochs between measurements.
        limit: Number of examples, from the start; `None` for all.
        seed: Seed of the directions, the steps and x'.
        batch_size: Number of examples to process at once.

    Raises:
        InputError: For an argument out of range, or data that do not match the model.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["train"].take(32)
    >>> model = soar_tf.SOARModel(soar_tf.networks.mlp(width=0.1), epsilon=0.1)
    >>> model.compile("sgd")
    >>> monitor = soar_tf.callbacks.CurvatureMonitor(digits, num_directions=10)
    >>> history = model.fit(digits.float_images(), digits.labels, verbose=0, callbacks=[monitor])
    >>> sorted(history.history)
    ['curvature_1', 'curvature_10', 'curvature_norm', 'loss', 'penalty', 'unclipped']
    """

    def __init__(
        self,
        data,
        epsilon=None,
        num_directions=100,
        alpha=0.03,
        init="pgd1",
        norm=None,
        every=1,
        limit=256,
        seed=0,
        *,
        batch_size=256,
    ):
        super().__init__(data, every=every, limit=limit, seed=seed, batch_size=batch_size)
        alpha = check_number(alpha, "alpha", minimum=0.0, exclusive=True)
        # SOAR checks the other arguments, and finds x'.
        h_min = min(curvature.MINIMUM_STEP, alpha)
        options = {"epsilon": epsilon, "norm": norm, "alpha": alpha, "init": init, "h_min": h_min}
        self._arguments = {name: value for name, value in options.items() if value is not None}
        self.method = SOAR(**self._arguments)
        self.num_directions = check_integer(num_directions, "num_directions", minimum=1)
        self._penalties = None

    def prepare(self, network):
        if (threat := self.threat_model) is not None:
            defaults = {"epsilon": threat.epsilon, "norm": threat.norm}
            self.method = SOAR(**{**defaults, **self._arguments})
        method, directions = self.method, self.num_directions
        factor = curvature.bound_factor(math.prod(self.x.shape[1:]), method.epsilon, method.norm)

        def penalties(x, y, keys):
            forward = Forward(network)

            def values(point):
                return losses.cross_entropy(y, forward.curvature(point))

            point = method.expansion_point(
                forward, x, y, losses.cross_entropy, random.derive(keys, "init")
            )
            _, gradient = gradients.input_gradient(values, point)
            derived = random.derive(keys, "curvature")

            def direction_norm(direction):
                return curvature.direction_norm(
                    values,
                    point,
                    gradient,
                    random.derive(derived, direction),
                    alpha=method.alpha,
                    h_min=method.h_min,
                )

            sizes = tf.map_fn(
                direction_norm,
                tf.range(directions),
                fn_output_signature=tf.float32,
                parallel_iterations=1,
            )
            return {"one": factor * sizes[0], "all": factor * tf.reduce_mean(sizes, axis=0)}

        self._penalties = PerExample(
            penalties, seed=self.seed, purpose="curvature monitor", batch_size=self.batch_size
        )

    def measure(self, epoch):
        penalties = self._penalties(self.x, self.y)
        return {
            "curvature_1": float(penalties["one"].mean()),
            f"curvature_{self.num_directions}": float(penalties["all"].mean()),
        }

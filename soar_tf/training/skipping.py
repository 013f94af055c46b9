"""Whether a train step skips the second-order passes of clipped examples."""

import keras
import numpy as np
import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.models import keras_internals
from soar_tf.training import first_look

# In forward passes F, SOAR's step costs 15 F, or 7 F + 12 F s with a share s of unclipped
# examples: less up to 2/3. The rest of the way is for gathering, and for shares that vary.
LARGEST_SHARE = 0.6
# How much of the estimate of s each step keeps.
MEMORY = 0.9
# Steps from one choice to the next.
INTERVAL = 50
_SHARE, _WAY = "unclipped_share", "skips_clipped"


class Skipping:
    """Chooses, every `INTERVAL` steps, between two ways to the same gradient.

    Either every example's penalty is recorded for the second backward pass, or the norms are
    computed without recording and only the unclipped examples' penalties are recorded. The choice
    falls by the share of unclipped examples in the last steps, an exponential mean that starts at
    0, since skipping is the way that takes less memory.

    The steps at which it falls are multiples of `INTERVAL` by the model's own counter, and share
    and way are parts of the model's state; so a resumed run takes the same ways, wherever it was
    stopped, and gives the same bits. They are not among the model's `weights`: files written before
    they existed have as many as they ever had.

    Args:
        setting: `"auto"`, or `True` or `False` for one way in every step.

    Attributes:
        way: Whether steps skip, by the last choice: what a train step is traced for.

    Raises:
        InputError: For another setting.
    """

    def __init__(self, setting="auto"):
        if not (isinstance(setting, bool) or setting == "auto"):
            raise InputError(
                f"`skip_clipped` must be 'auto', True or False. Received: {setting!r}."
            )
        self.setting = setting
        self.way = setting is not False
        self.share = keras.Variable(
            0.0,
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="only_first_replica",  # all have the global batch's share
            name=_SHARE,
        )

    def check(self, xla):
        """Refuses `True` for a step that XLA compiles.

        Raises:
            InputError: With what to do.
        """
        if xla and self.setting is True:
            raise InputError(
                "`skip_clipped` must be 'auto' or False for a step that XLA compiles, which needs "
                "to know every shape; compile with jit_compile=False. Received: True."
            )

    def next_way(self, step, count=1):
        """Whether the next steps skip: the way so far, or a new choice.

        Args:
            step: Number of steps done.
            count: Number of steps that go the same way, as one call of a train function.
        """
        # Also where the multiple was inside the last call.
        if self.setting == "auto" and step % INTERVAL < count:
            return self._choice()
        return self.way

    def update(self, share):
        """Takes note of a step's share of unclipped examples, a scalar tensor."""
        self.share.assign(MEMORY * self.share.value + (1.0 - MEMORY) * share)

    def save(self, store):
        """Puts the state into a Keras store, under names of its own."""
        store[_SHARE] = self.share.numpy()
        store[_WAY] = np.float32(self.way)

    def load(self, store):
        """Takes the state out of a dictionary of what was stored; keeps it if there is none."""
        share, way = store.pop(_SHARE, None), store.pop(_WAY, None)
        if share is None:
            return
        self.share.assign(share)
        if self.setting == "auto":
            # Files from when each step chose have no way.
            chosen = self._choice() if way is None else np.asarray(way) > 0.0
            self.way = bool(chosen)

    def _choice(self):
        return bool(self.share.numpy() <= LARGEST_SHARE)


class SkippingModel(keras.Model):
    """A Keras model whose train function has a graph for each way, traced when it is first taken.

    A subclass has a `method` and, as `_skipping`, a `Skipping`.
    """

    @property
    def skips_clipped(self):
        """Whether the next step skips the second-order passes of clipped examples.

        `None` if the method clips none. See the argument `skip_clipped`.
        """
        if not self.method.clips_examples:
            return None
        return self._may_skip and self._next_way()

    @property
    def _may_skip(self):
        # Rows are gathered, as many as there are: XLA wants to know their number beforehand.
        return self.method.clips_examples and not self.jit_compile

    def _next_way(self):
        return self._skipping.next_way(int(self.step.numpy()), self.steps_per_execution)

    def make_train_function(self, force=False):
        """See `keras.Model.make_train_function`; here, `train_step` is traced once per way."""
        if self.train_function is not None and not force:
            return
        functions = {}

        def train_function(iterator):
            if self._may_skip:
                self._skipping.way = self._next_way()
            way = self._skipping.way
            if way not in functions:
                self._build_for(iterator)
                super(SkippingModel, self).make_train_function(force=True)
                functions[way], self.train_function = self.train_function, train_function
            return functions[way](iterator)

        self.train_function = train_function

    def _build_for(self, batches):
        """Builds optimizer and metrics: variables that a trace makes have it traced again."""
        with self.distribute_strategy.scope():
            if not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
            spec = getattr(batches, "element_spec", None)
            if spec is None or not keras_internals.lacks_metrics(self):
                return
            x, *rest = spec
            if all(part.shape.rank is not None for part in tf.nest.flatten(spec)):
                keras_internals.build_metrics(self, (first_look.only_input(x), *rest))


class EpochMean(keras.metrics.Mean):
    """A mean over an epoch; files from before it existed load, too."""

    def load_own_variables(self, store):
        if len(store.keys()) > 0:
            super().load_own_variables(store)

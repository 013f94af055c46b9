"""Whether a train step skips the second-order passes of clipped examples, and what it logs."""

import keras
import tensorflow as tf

from soar_tf.errors import InputError

# In forward passes F, SOAR's step costs 15 F, or 7 F + 12 F s with a share s of unclipped
# examples: less up to 2/3. The rest of the way is for gathering, and for shares that vary.
LARGEST_SHARE = 0.6
# How much of the estimate of s each step keeps.
MEMORY = 0.9
_NAME = "unclipped_share"


class Skipping:
    """Chooses, in each step, between two ways to the same gradient.

    Either every example's penalty is recorded for the second backward pass, or the norms are
    computed without recording and only the unclipped examples' penalties are recorded. The choice
    falls by the share of unclipped examples in the last steps: an exponential mean, which is a part
    of the model's state, so that a resumed run takes the same way and gives the same bits. It
    starts at 0, since skipping is the way that takes less memory. It is not one of the model's
    `weights`: files written before it existed have as many as they ever had.

    Args:
        setting: `"auto"`, or `True` or `False` for one way in every step.

    Raises:
        InputError: For another setting.
    """

    def __init__(self, setting="auto"):
        if not (isinstance(setting, bool) or setting == "auto"):
            raise InputError(
                f"`skip_clipped` must be 'auto', True or False. Received: {setting!r}."
            )
        self.setting = setting
        self.share = keras.Variable(
            0.0,
            trainable=False,
            dtype="float32",
            autocast=False,
            # Replicas have shares of their own, but must not lose each other's state.
            aggregation="only_first_replica",
            name=_NAME,
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

    def active(self):
        """Whether the next step skips: a bool, or a scalar tensor with the `"auto"` setting."""
        return self.share.value <= LARGEST_SHARE if self.setting == "auto" else self.setting

    def choose(self, compute):
        """`compute(True)` if this step skips, else `compute(False)`.

        Args:
            compute: Callable of a bool that gives a structure of tensors and `None`s, of the same
                form in both cases.
        """
        if self.setting != "auto":
            return compute(self.setting)
        forms = []

        def way(skip):
            forms.append(compute(skip))
            values = tf.nest.flatten(forms[-1])
            return [tf.convert_to_tensor(value) for value in values if value is not None]

        # The gradients are taken inside: differentiating a conditional would keep both ways'
        # intermediate tensors.
        values = iter(tf.cond(self.active(), lambda: way(True), lambda: way(False)))
        flat = [None if value is None else next(values) for value in tf.nest.flatten(forms[0])]
        return tf.nest.pack_sequence_as(forms[0], flat)

    def update(self, share):
        """Takes note of a step's share of unclipped examples, a scalar tensor."""
        self.share.assign(MEMORY * self.share.value + (1.0 - MEMORY) * share)

    def save(self, store):
        """Puts the state into a Keras store, under a name of its own."""
        store[_NAME] = self.share.numpy()

    def load(self, store):
        """Takes the state out of a dictionary of what was stored; keeps it if there is none."""
        if (share := store.pop(_NAME, None)) is not None:
            self.share.assign(share)


class EpochMean(keras.metrics.Mean):
    """A mean over an epoch; files from before it existed load, too."""

    def load_own_variables(self, store):
        if len(store.keys()) > 0:
            super().load_own_variables(store)

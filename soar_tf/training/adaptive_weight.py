"""The state of a penalty weight that follows its penalty, as a part of the model."""

import keras

_NAME = "adaptive_weight"


class AdaptiveWeight:
    """A method's `weight_rule` and what it remembers; nothing for methods without one.

    The state is not one of the model's `weights`: files written before it existed have as many as
    they ever had. Every replica computes the same state, from the global batch's mean penalty.

    Args:
        rule: A `soar_tf.methods.adaptive.JumpRule`, or `None`.
    """

    def __init__(self, rule):
        self.state = None
        if rule is not None:
            self.state = keras.Variable(
                rule.initial(),
                trainable=False,
                dtype="float32",
                autocast=False,
                aggregation="only_first_replica",
                name=_NAME,
            )

    def weigh(self, method):
        """The method with the weight of this step."""
        return method if self.state is None else method.with_weight(self.state.value[0])

    def update(self, rule, penalty):
        """Takes note of a step.

        Args:
            rule: The method's rule in this step, or `None`.
            penalty: Callable that gives the step's mean penalty over the global batch, a scalar.

        Returns:
            What `fit` logs: the weight that the step had, by its argument's name.
        """
        if self.state is None:
            return {}
        logged = {"lambda_": self.state.value[0] + 0.0}  # as it is now
        self.state.assign(rule.after(self.state.value, penalty()))
        return logged

    def save(self, store):
        """Puts the state into a Keras store, under a name of its own."""
        if self.state is not None:
            store[_NAME] = self.state.numpy()

    def load(self, store):
        """Takes the state out of a dictionary of what was stored; keeps it if there is none."""
        state = store.pop(_NAME, None)
        if state is not None and self.state is not None:
            self.state.assign(state)

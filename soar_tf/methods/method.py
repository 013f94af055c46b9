"""The base class of every method: what is minimised, per example."""

import copy
import dataclasses
import types

import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.methods import schedules
from soar_tf.registry import Configurable
from soar_tf.threat_model import ThreatModel
from soar_tf.validation import check_number, tensors_as_numbers

# The diagnostic that says which examples' penalty has a gradient; see `Method.diagnostics`.
UNCLIPPED = "unclipped"


@dataclasses.dataclass(frozen=True)
class Terms:
    """What a method computes for a batch.

    Attributes:
        loss: `[B]`, the per-example loss.
        logits: `[B, C]`, the logits that training metrics are computed from.
        penalty: `[B]`, the per-example regularizer before its weight, or `None`.
        penalty_weight: The regularizer's weight: a float or a scalar tensor.
        loss_gradients: The gradient of `sum(loss)` with respect to each of the network's trainable
            weights, if the method had it at no extra pass; `None` if it had not.
        diagnostics: What `fit` logs the mean of, `[B]` each, by the names in `Method.diagnostics`.
    """

    loss: tf.Tensor
    logits: tf.Tensor
    penalty: tf.Tensor | None = None
    penalty_weight: float | tf.Tensor = 0.0
    loss_gradients: list | None = None
    diagnostics: dict = dataclasses.field(default_factory=dict)


class Method(Configurable):
    """A training objective. It holds hyper-parameters only, no state and no weights.

    A subclass implements `terms`, in one file, and is registered by one line in
    `soar_tf/methods/__init__.py`. Its constructor's arguments are its hyper-parameters: they are
    what `soar-tf train --method-arg` sets and what `soar-tf list methods` prints.

    Attributes:
        has_penalty: Whether `terms` gives a penalty, which `fit` then logs.
        second_order: Whether the penalty's gradient takes second derivatives of the network, so
            that every layer must have exact ones.
        couples_examples: Whether an example's terms depend on the other examples of its batch. Then
            batches must stay whole, see `check_batches`.
        diagnostics: Names of the `Terms.diagnostics` that `terms` gives, which `fit` then logs. The
            name `"unclipped"` has a meaning: 1 for an example whose penalty has a gradient, 0 for
            one whose penalty is clipped to a constant. A method that has it leaves out the passes
            that only clipped penalties need if `forward.skip_clipped` says so.
        penalty_clipnorm: If not `None`, the penalty's parameter gradient is clipped to this l2
            norm by itself, before the loss's gradient is added.
        starts_from_standard: Whether the method fine-tunes a network trained in the standard
            way, so that the command line trains one first.
        needs_input_gradient: Whether it trains along the loss's gradient by the image, so that a
            network without one would be trained as by `standard`.
        takes_mixed_labels: Whether labels may be shares of several classes, `[B, C]`, as mixup
            makes them: `terms` uses them in `loss_fn` only.
        train_settings: Settings of `soar_tf.runs.config.TrainConfig` that a run with this method
            has unless they are given, such as an attack that watches over it.
        weight_rule: How the penalty's weight follows the penalty from step to step: a
            `soar_tf.methods.adaptive.JumpRule`, or `None`. Its state is the model's.
        schedules: The arguments that change during training, by name; the attributes themselves
            hold the last values. See `soar_tf.methods.Schedule`: any constructor takes them.
    """

    has_penalty = False
    second_order = False
    couples_examples = False
    diagnostics = ()
    penalty_clipnorm = None
    starts_from_standard = False
    needs_input_gradient = True
    takes_mixed_labels = True
    train_settings = types.MappingProxyType({})
    weight_rule = None
    schedules = types.MappingProxyType({})

    def __init_subclass__(cls, takes_schedules=True, **kwargs):
        super().__init_subclass__(**kwargs)
        if takes_schedules and "__init__" in vars(cls):
            cls.__init__ = schedules.accepting(cls.__init__)

    def get_config(self):
        """The constructor's arguments as plain values; a schedule as its text."""
        return {**super().get_config(), **{k: str(v) for k, v in self.schedules.items()}}

    @property
    def threat_model(self):
        """The `soar_tf.threat_model.ThreatModel` that the method trains for, or `None`.

        Of a radius that grows during training it has the last value.
        """
        if getattr(self, "epsilon", None) is None:
            return None
        return ThreatModel(getattr(self, "norm", "linf"), self.epsilon)

    @property
    def clips_examples(self):
        """Whether penalties may be clipped to constants: it has the diagnostic `"unclipped"`."""
        return UNCLIPPED in self.diagnostics

    @property
    def schedules_count_epochs(self):
        """Whether a schedule has its length in epochs."""
        return any(schedule.unit == "epochs" for schedule in self.schedules.values())

    def scheduled_values(self, step, steps_per_epoch=None):
        """The values that scheduled arguments have in a step, scalar tensors by name."""
        return {k: v.at(step, steps_per_epoch) for k, v in self.schedules.items()}

    def at(self, step, steps_per_epoch=None):
        """The method as it is in a step: with its schedules' values for constants.

        Args:
            step: Steps done before it: int or integer scalar tensor.
            steps_per_epoch: Steps of an epoch, for schedules that count epochs.

        Returns:
            A `Method` without schedules; this one itself if it has none.
        """
        values = self.scheduled_values(step, steps_per_epoch)
        if not values:
            return self
        with tensors_as_numbers():
            return type(self)(**{**self.get_config(), **values})

    def with_weight(self, weight):
        """The method with another weight of its penalty, for one with a `weight_rule`.

        Args:
            weight: A number or a scalar tensor.
        """
        weighed = copy.copy(self)
        weighed.lambda_ = weight
        return weighed

    def check_batches(self, micro_batch, replicas):
        """Refuses to split the batches of a method that couples their examples.

        Args:
            micro_batch: Examples that go through the network together, or `None` for all.
            replicas: Number of replicas that share a batch.

        Raises:
            InputError: With what is allowed.
        """
        if self.couples_examples and (micro_batch is not None or replicas > 1):
            raise InputError(
                "`micro_batch` must be None, and there must be one replica, for a method that "
                "couples the examples of a batch, as SOAR's norm_clip_scope='batch' does. "
                f"Received: micro_batch={micro_batch}, replicas={replicas}."
            )

    def check_mixed_labels(self, rule, received):
        """Refuses labels that are shares of several classes, for a method that needs one class.

        Args:
            rule: What must be, such as "`mixup` must be None".
            received: What came.

        Raises:
            InputError: With what is allowed.
        """
        if not self.takes_mixed_labels:
            raise InputError(
                f"{rule} for a method that compares the label with the other classes, as mart does "
                f"and an inner or penalty loss other than 'training'. Received: {received}."
            )

    def terms(self, forward, x, y, *, loss_fn, keys):
        """Computes the objective's terms; called inside the train step's outer gradient tape.

        Args:
            forward: A `soar_tf.methods.Forward`: the network, with one function a mode.
            x: float32 tensor `[B, ...]`, pixels in [0, 1].
            y: Labels, in the form that `loss_fn` takes.
            loss_fn: Per-example loss, `(y, logits [B, C]) -> [B]`.
            keys: uint32 tensor `[B, 2]`, this step's noise key of each example.

        Returns:
            `Terms`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `terms`.")


def optional_number(value, argument, **limits):
    """`check_number` for arguments that may be `None` (also as the string `"none"`)."""
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    return check_number(value, argument, **limits)

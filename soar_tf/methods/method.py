"""The base class of all methods: what is minimised, per example."""

import copy
import dataclasses
import types

import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.methods import schedules
from soar_tf.registry import Configurable
from soar_tf.threat_model import ThreatModel
from soar_tf.validation import check_number, tensors_as_numbers

# The diagnostic that marks the examples whose penalty has a gradient; see `Method.diagnostics`.
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
            weights, if the method computed it without an extra pass; otherwise `None`.
        diagnostics: Values, `[B]` each, whose means `fit` logs, by the names in
            `Method.diagnostics`.
    """

    loss: tf.Tensor
    logits: tf.Tensor
    penalty: tf.Tensor | None = None
    penalty_weight: float | tf.Tensor = 0.0
    loss_gradients: list | None = None
    diagnostics: dict = dataclasses.field(default_factory=dict)


class Method(Configurable):
    """A training objective. It has hyper-parameters only, no state and no weights.

    A subclass implements `terms`, in one file, and is registered by one line in
    `soar_tf/methods/__init__.py`. Its constructor's arguments are its hyper-parameters, which
    `soar-tf train --method-arg` sets and `soar-tf list methods` prints.

    Attributes:
        has_penalty: Whether `terms` returns a penalty, which `fit` then logs.
        second_order: Whether the penalty's gradient involves second derivatives of the network, so
            that every layer must have exact ones.
        couples_examples: Whether an example's terms depend on the rest of its batch. If so,
            batches must not be split, see `check_batches`.
        diagnostics: Names of the `Terms.diagnostics` that `terms` returns, which `fit` then logs.
            The name `"unclipped"` has a meaning: 1 for an example whose penalty has a gradient, 0
            for one whose penalty is clipped to a constant. A method with this diagnostic skips the
            passes that only clipped penalties need if `forward.skip_clipped` is true.
        penalty_clipnorm: If not `None`, the penalty's parameter gradient is clipped to this l2
            norm separately, before the loss's gradient is added.
        starts_from_standard: Whether the method fine-tunes a network from standard training, which
            the command line then trains first.
        needs_input_gradient: Whether it uses the loss's gradient with respect to the image; a
            network without one would effectively be trained by `standard`.
        takes_mixed_labels: Whether labels may be shares of several classes, `[B, C]`, as in mixup:
            `terms` uses them in `loss_fn` only.
        train_settings: Defaults of `soar_tf.runs.config.TrainConfig` for runs with this method,
            such as a validation attack.
        weight_rule: How the penalty's weight adapts to the penalty from step to step: a
            `soar_tf.methods.adaptive.JumpRule`, or `None`. Its state belongs to the model.
        schedules: The arguments that change during training, by name; the attributes of these names
            have the last values. Every constructor accepts them, see `soar_tf.methods.Schedule`.
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

        If the radius changes during training, this is the last value.
        """
        if getattr(self, "epsilon", None) is None:
            return None
        return ThreatModel(getattr(self, "norm", "linf"), self.epsilon)

    @property
    def clips_examples(self):
        """Whether penalties may be clipped to constants (the diagnostic `"unclipped"`)."""
        return UNCLIPPED in self.diagnostics

    @property
    def schedules_count_epochs(self):
        """Whether the length of any schedule is in epochs."""
        return any(schedule.unit == "epochs" for schedule in self.schedules.values())

    def scheduled_values(self, step, steps_per_epoch=None):
        """The values that scheduled arguments have in a step, scalar tensors by name."""
        return {k: v.at(step, steps_per_epoch) for k, v in self.schedules.items()}

    def at(self, step, steps_per_epoch=None):
        """The method in a given step, with the current values in place of its schedules.

        Args:
            step: Number of steps done before: int or integer scalar tensor.
            steps_per_epoch: Steps per epoch, for schedules in epochs.

        Returns:
            A `Method` without schedules; this one itself if it has none.
        """
        values = self.scheduled_values(step, steps_per_epoch)
        if not values:
            return self
        with tensors_as_numbers():
            return type(self)(**{**self.get_config(), **values})

    def with_weight(self, weight):
        """A copy of the method with another penalty weight, for a method with a `weight_rule`.

        Args:
            weight: A number or a scalar tensor.
        """
        reweighted = copy.copy(self)
        reweighted.lambda_ = weight
        return reweighted

    def check_batches(self, micro_batch, replicas):
        """Rejects splitting the batches of a method that couples their examples.

        Args:
            micro_batch: Number of examples that go through the network together, or `None` for all.
            replicas: Number of replicas that share a batch.

        Raises:
            InputError: If batches would be split.
        """
        if self.couples_examples and (micro_batch is not None or replicas > 1):
            raise InputError(
                "`micro_batch` must be None, and there must be one replica, for a method that "
                "couples the examples of a batch, as SOAR's norm_clip_scope='batch' does. "
                f"Received: micro_batch={micro_batch}, replicas={replicas}."
            )

    def check_mixed_labels(self, rule, received):
        """Rejects labels that are shares of several classes if the method needs one class.

        Args:
            rule: What is required, such as "`mixup` must be None".
            received: The value received.

        Raises:
            InputError: If the method does not take such labels.
        """
        if not self.takes_mixed_labels:
            raise InputError(
                f"{rule} for a method that compares the label with the other classes, such as mart "
                f"or one with an inner or penalty loss other than 'training'. Received: {received}."
            )

    def terms(self, forward, x, y, *, loss_fn, keys):
        """Computes the terms of the objective, inside the train step's outer gradient tape.

        Args:
            forward: A `soar_tf.methods.Forward`: the network, with one function per mode.
            x: float32 tensor `[B, ...]`, pixels in [0, 1].
            y: Labels, in the form that `loss_fn` takes.
            loss_fn: Per-example loss, `(y, logits [B, C]) -> [B]`.
            keys: uint32 tensor `[B, 2]`, each example's noise key in this step.

        Returns:
            `Terms`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `terms`.")


def optional_number(value, argument, **limits):
    """`check_number` for arguments that may be `None` (also as the string `"none"`)."""
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    return check_number(value, argument, **limits)

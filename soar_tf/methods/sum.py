"""Several methods combined: a mean of their losses and the sum of their penalties."""

import copy
import functools

import keras
import tensorflow as tf

from soar_tf import methods, registry
from soar_tf.errors import InputError
from soar_tf.methods import schedules
from soar_tf.methods.forward import Forward
from soar_tf.methods.method import Method, Terms, optional_number
from soar_tf.ops import random
from soar_tf.validation import check_epsilon, check_number

# SOAR's default constants suit standard training. With adversarial examples its penalty outweighs
# the loss: on CIFAR-10 every image got the same prediction (docs/method_study.md).
_DEFAULT = ("adversarial", {"method": "soar", "preset": "batch_mean", "lambda_": "1/512"})


class Sum(Method, takes_schedules=False):
    r"""A combination of methods, for instance adversarial training with SOAR's penalty.

    With the members' losses $\ell_i$, penalties $R_i$ and penalty weights $\lambda_i$, minimises
    per example

    $$\frac{\sum_i w_i \ell_i}{\sum_i w_i} + \sum_i \lambda_i R_i.$$

    The weights w apply to losses only: `Sum(["adversarial", "soar"], weights=[1, 0])` is the
    adversarial loss plus SOAR's penalty. Members draw independent noise. Training metrics are
    computed from the first member's logits. Members' arguments may be schedules, whose values `fit`
    logs as `<member>_<argument>`.

    BatchNorm: the first pass in training mode updates the moving statistics; later ones use their
    batch statistics without updating anything, so each step makes one update. Clipping: if members
    clip their penalty's gradient, that of the summed penalty is clipped to the smallest
    `penalty_clipnorm`. A diagnostic that several members have is taken from the first of them.

    Args:
        methods: List of members, each a `Method`, a registered name, or a dictionary
            `{"method": name, argument: value, ...}`; or a string such as `"adversarial+jacobian"`.
            Default: adversarial training with a lightly weighted SOAR penalty.
        weights: List of the losses' weights w, at least 0, one per member; or a string such as
            `"1+0"`. Default: equal.
        epsilon: Radius, in units of the pixel range, for the members given by name or dictionary
            that take an `epsilon` and do not set it. Default: each member's default.

    Raises:
        InputError: For an empty list, an invalid member, or weights that do not match.

    Example:

    >>> import soar_tf
    >>> combined = soar_tf.methods.Sum("adversarial+jacobian", weights=[1, 0], epsilon="4/255")
    >>> combined.has_penalty, round(255 * combined.members[0].epsilon)
    (True, 4)
    """

    def __init__(self, methods=_DEFAULT, weights=None, epsilon=None):
        schedule = schedules.parse(epsilon)
        if schedule is not None:  # the members check it
            self.epsilon = str(schedule)
        else:
            absent = optional_number(epsilon, "epsilon") is None
            self.epsilon = None if absent else check_epsilon(epsilon)
        entries = methods.split("+") if isinstance(methods, str) else list(methods)
        if not entries:
            raise InputError("`methods` must name at least one method. Received: none.")
        self.members = [_member(entry, self.epsilon) for entry in entries]
        if any(member.weight_rule is not None for member in self.members):
            raise InputError(
                "`methods` must not contain a method with an adaptive weight, such as elle with "
                "adaptive=True; give it a constant weight or a schedule."
            )
        self.weights = _weights(weights, len(self.members))
        self.has_penalty = any(member.has_penalty for member in self.members)
        self.second_order = any(member.second_order for member in self.members)
        self.couples_examples = any(member.couples_examples for member in self.members)
        self.takes_mixed_labels = all(member.takes_mixed_labels for member in self.members)
        self.starts_from_standard = any(member.starts_from_standard for member in self.members)
        self.penalty_clipnorm = _smallest(member.penalty_clipnorm for member in self.members)
        diagnostics = dict.fromkeys(name for member in self.members for name in member.diagnostics)
        self.diagnostics = tuple(diagnostics)
        self.train_settings = {
            name: value for member in self.members for name, value in member.train_settings.items()
        }

    @property
    def methods(self):
        """The members as plain values, for the config."""
        return [_plain(member) for member in self.members]

    @property
    def schedules_count_epochs(self):
        return any(member.schedules_count_epochs for member in self.members)

    def scheduled_values(self, step, steps_per_epoch=None):
        return {
            f"{type(member).__name__.lower()}_{name}": value
            for member in self.members
            for name, value in member.scheduled_values(step, steps_per_epoch).items()
        }

    def at(self, step, steps_per_epoch=None):
        current = copy.copy(self)
        current.members = [member.at(step, steps_per_epoch) for member in self.members]
        current.penalty_clipnorm = _smallest(member.penalty_clipnorm for member in current.members)
        return current

    def terms(self, forward, x, y, *, loss_fn, keys):
        forward = _OneUpdate(forward)
        total = sum(self.weights)
        loss, penalties, logits, diagnostics = 0.0, [], None, {}
        for position, (member, weight) in enumerate(zip(self.members, self.weights, strict=True)):
            derived = random.derive(keys, position)
            terms = member.terms(forward, x, y, loss_fn=loss_fn, keys=derived)
            loss += weight / total * terms.loss
            logits = terms.logits if logits is None else logits
            diagnostics = terms.diagnostics | diagnostics
            if terms.penalty is not None:
                penalties.append(terms.penalty_weight * terms.penalty)
        penalty = tf.add_n(penalties) if penalties else None
        return Terms(loss, logits, penalty, 1.0, diagnostics=diagnostics)


def _smallest(limits):
    """The smallest of the numbers and scalar tensors, ignoring `None`; `None` if there is none."""
    limits = [limit for limit in limits if limit is not None]
    if any(tf.is_tensor(limit) for limit in limits):
        return functools.reduce(tf.minimum, limits)
    return min(limits, default=None)


class _OneUpdate(Forward):
    """A `Forward` whose first training pass alone updates BatchNorm's moving statistics."""

    def __init__(self, forward):
        # The same network and the same list of passes, which the engine reads.
        self.__dict__.update(forward.__dict__)
        self._seen = []
        # The sum's gradient is weighted, and not every member returns its loss's gradient.
        self.needs_recorded_loss = True

    def training(self, x):
        for point, logits in self._seen:
            if point is x:
                return logits
        if self._seen:
            with keras.StatelessScope(initialize_variables=False):
                logits = tf.cast(self.network(x, training=True), tf.float32)
        else:
            logits = super().training(x)
        self._seen.append((x, logits))
        return logits


def _member(entry, epsilon):
    """A member from a `Method`, a name, or a dictionary of a name and arguments."""
    if isinstance(entry, Method):
        return entry
    if isinstance(entry, dict) and "class_name" in entry:
        return methods.deserialize(entry)
    arguments = dict(entry) if isinstance(entry, dict) else {"method": entry}
    name = arguments.pop("method", None)
    name = name.strip() if isinstance(name, str) else name
    takes = registry.argument_names(methods.find(name)) if isinstance(name, str) else ()
    if epsilon is not None and "epsilon" in takes:
        arguments.setdefault("epsilon", epsilon)
    return methods.get(name, **arguments)


def _plain(member):
    """A member in the form that `_member` accepts, with values for TOML and JSON."""
    name = next((k for k, cls in methods.available()[0].items() if cls is type(member)), None)
    if name is None:
        return methods.serialize(member)
    config = {k: "none" if v is None else v for k, v in member.get_config().items()}
    return {"method": name, **config}


def _weights(weights, count):
    if weights is None or (isinstance(weights, str) and weights.lower() == "none"):
        return [1.0] * count
    entries = weights.split("+") if isinstance(weights, str) else list(weights)
    values = [check_number(entry, "weights", minimum=0.0) for entry in entries]
    if len(values) != count or sum(values) == 0:
        raise InputError(
            f"`weights` must be {count} numbers, one per method and not all 0. "
            f"Received: {weights!r}."
        )
    return values

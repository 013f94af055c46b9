"""The threat model: which perturbations of an image count as an attack on it."""

import dataclasses

from soar_tf.errors import InputError
from soar_tf.formatting import threat_text
from soar_tf.validation import check_choice, check_epsilon, check_number

NORMS = ("linf", "l2", "l1")


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """A ball around an image, cut with the box of valid pixels.

    Attacks and methods take `epsilon`, `norm` and `bounds` as arguments and give this object as
    their `threat_model`. Evaluations, callbacks and reports ask a run for it, so that a network is
    judged in the ball that it was trained for.

    Args:
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: Radius in units of the pixel range, a number or a fraction such as `"8/255"`.
        bounds: `(low, high)` of valid pixels.

    Raises:
        InputError: For an unknown norm, a radius that the norm cannot have, or empty bounds.

    Example:

    >>> from soar_tf.threat_model import ThreatModel
    >>> print(ThreatModel("l2", "128/255"))
    L2 0.502
    """

    norm: str = "linf"
    epsilon: float = 8 / 255
    bounds: tuple = (0.0, 1.0)

    def __post_init__(self):
        check_choice(self.norm, "norm", NORMS)
        object.__setattr__(self, "epsilon", check_epsilon(self.epsilon, norm=self.norm))
        low, high = (check_number(bound, "bounds") for bound in self.bounds)
        if low >= high:
            raise InputError(f"`bounds` must be (low, high), low < high. Received: {self.bounds}.")
        object.__setattr__(self, "bounds", (low, high))

    def __str__(self):
        return threat_text(self.norm, self.epsilon)

"""AutoAttack: a fixed, parameter-free ensemble of attacks (arXiv:2003.01690)."""

import tensorflow as tf

from soar_tf.attacks.apgd import APGD, APGDT
from soar_tf.attacks.attack import Attack, gather, misclassified, search_finite
from soar_tf.attacks.fab import FAB, FABT
from soar_tf.attacks.square import Square
from soar_tf.ops import norms
from soar_tf.validation import check_choice

# The stages of each version, in the order of the authors' code.
VERSIONS = {
    "standard": (
        ("apgd-ce", APGD, {"loss": "ce"}),
        ("apgd-t", APGDT, {}),
        ("fab-t", FABT, {}),
        ("square", Square, {}),
    ),
    "plus": (
        ("apgd-ce", APGD, {"loss": "ce", "restarts": 5}),
        ("apgd-dlr", APGD, {"loss": "dlr", "restarts": 5}),
        ("fab", FAB, {"restarts": 5}),
        ("square", Square, {}),
        ("apgd-t", APGDT, {}),
        ("fab-t", FABT, {}),
    ),
    "rand": (
        ("apgd-ce", APGD, {"loss": "ce", "eot_iter": 20}),
        ("apgd-dlr", APGD, {"loss": "dlr", "eot_iter": 20}),
    ),
}
# Changes for a norm in the authors' code (arXiv:2103.01208): {(version, stage): arguments}.
_BY_NORM = {
    "l1": {("standard", "apgd-ce"): {"restarts": 5}, ("standard", "apgd-t"): {"targets": 5}}
}


class AutoAttack(Attack):
    """AutoAttack (Croce and Hein 2020, arXiv:2003.01690); each stage attacks only the survivors.

    `standard` is exactly apgd-ce (100 steps, 1 start), apgd-t (targeted DLR, 9 targets, 100
    steps), fab-t (9 targets, 100 steps) and square (5000 queries); in l1 (arXiv:2103.01208) apgd-ce
    has 5 starts and apgd-t 5 targets. `plus` adds restarts, apgd-dlr and the untargeted fab.
    `rand`, for networks with a random forward pass, averages gradients over 20 passes. The authors
    define these two for linf and l2; here they have the same arguments in l1. With C < 10 classes
    the targeted attacks use all C - 1 other classes.

    Args:
        epsilon: Radius, in the units of `bounds`. Default: 12 for l1, else 8/255.
        norm: `"linf"`, `"l2"` or `"l1"`.
        version: `"standard"`, `"plus"` or `"rand"`.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> [name for name, _ in soar_tf.attacks.get("autoattack").stages()]
    ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    >>> soar_tf.attacks.get("autoattack:norm=l1").epsilon
    12.0
    """

    norms = norms.NAMES

    def __init__(self, epsilon=None, norm="linf", version="standard", bounds=(0.0, 1.0)):
        super().__init__(epsilon, norm, bounds)
        self.version = check_choice(version, "version", VERSIONS)

    def stages(self):
        """The stages, for evaluations that run them one after the other.

        Running each on the survivors of the earlier ones, with the same `seed` and `indices`, gives
        the same result as the whole attack.

        Returns:
            List of `(name, Attack)`.
        """
        common = {"epsilon": self.epsilon, "norm": self.norm, "bounds": self.bounds}
        changes = _BY_NORM.get(self.norm, {})
        return [
            (name, cls(**(common | arguments | changes.get((self.version, name), {}))))
            for name, cls, arguments in VERSIONS[self.version]
        ]

    def search(self, logits_fn, x, y, keys):
        result, active = x, tf.range(tf.shape(x)[0])
        for _, attack in self.stages():
            result, active = _stage(attack, logits_fn, x, y, keys, result, active)
        return result


def _stage(attack, logits_fn, x, y, keys, result, active):
    """Runs one attack on the `active` rows; the unbroken ones keep their clean image."""

    def run():
        active_x, active_y, active_keys = gather(active, x, y, keys)
        x_adv = search_finite(attack, logits_fn, active_x, active_y, active_keys)
        fooled = misclassified(active_y, logits_fn(x_adv))
        broken, points = gather(tf.where(fooled)[:, 0], active, x_adv)
        return (
            tf.tensor_scatter_nd_update(result, broken[:, None], points),
            tf.gather(active, tf.where(~fooled)[:, 0]),
        )

    return tf.cond(tf.size(active) > 0, run, lambda: (result, active))

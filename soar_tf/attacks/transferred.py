"""Attacks on a network without gradients, through another network that has them."""

import tensorflow as tf

from soar_tf.attacks.attack import Attack, as_logits_fn, attack_survivors
from soar_tf.validation import check_choice

WAYS = ("crafted", "straight-through")


class Transferred(Attack):
    """A white-box attack on a network that cannot be differentiated, such as a LiteRT file.

    Another network, ideally the one that the file was exported from, provides the gradients in one
    of two ways:

    * `"crafted"`: the examples are crafted on the source alone, by `perturb` if the attack has it;
      the file only classifies them;
    * `"straight-through"`: the attack runs on the file's logits z(x) with the source's gradients
      (BPDA, Athalye et al. 2018, arXiv:1802.00420): s(x) + stop_gradient(z(x) - s(x)). It thus
      continues until the file itself is fooled.

    An evaluation runs both, the second on the survivors of the first; attacks that use no gradients
    run on the file directly.

    Args:
        attack: The `Attack`.
        source: The network with gradients: a `keras.Model` giving logits, or a callable
            `[B, ...] -> [B, C]`.
        name: Name of the source in the report.
        way: `"crafted"` or `"straight-through"`; `None` for both, as stages.

    Raises:
        InputError: For an unknown `way`.

    Example:

    >>> import soar_tf
    >>> attack = soar_tf.attacks.Transferred(soar_tf.attacks.get("pgd20"), soar_tf.networks.mlp())
    >>> [name for name, _ in attack.stages()]
    ['crafted', 'straight-through']
    """

    needs_gradients = False

    def __init__(self, attack, source, name="source", way=None):
        self.crafted_by, self.source, self.name = attack, source, name
        self.way = way if way is None else check_choice(way, "way", WAYS)
        self.norm, self.epsilon, self.bounds = attack.norm, attack.epsilon, attack.bounds
        self._source_logits = as_logits_fn(source)

    def get_config(self):
        """The attack's arguments, and the name of the source."""
        config = {"attack": type(self.crafted_by).__name__, "source": self.name, "way": self.way}
        return config | self.crafted_by.get_config()

    def stages(self):
        """Both ways for each of the attack's stages, see `Attack.stages`."""
        if self.way is not None:
            return [(self.way, self)]
        inner_stages = self.crafted_by.stages()
        stages = []
        for stage, attack in inner_stages:
            if not attack.needs_gradients:
                stages.append((stage, attack))
                continue
            for way in WAYS:
                label = way if len(inner_stages) == 1 else f"{stage} {way}"
                stages.append((label, Transferred(attack, self.source, self.name, way)))
        return stages

    def search(self, logits_fn, x, y, keys):
        if self.way == "crafted":
            return self._craft(x, y, keys)
        if self.way == "straight-through":
            return self.crafted_by.search(self._with_source_gradients(logits_fn), x, y, keys)
        crafted = self._craft(x, y, keys)
        # The search starts at the clean image: it is a separate attack, not a continuation.
        straight_through = self._with_source_gradients(logits_fn)
        result = attack_survivors(self.crafted_by, straight_through, x, y, keys)
        wrong = tf.argmax(logits_fn(crafted), axis=1, output_type=y.dtype) != y
        return tf.where(tf.reshape(wrong, [-1] + [1] * (len(x.shape) - 1)), crafted, result)

    def _craft(self, x, y, keys):
        if type(self.crafted_by).perturb is not Attack.perturb:
            return self.crafted_by.perturb(self._source_logits, x, y, keys)
        return attack_survivors(self.crafted_by, self._source_logits, x, y, keys)

    def _with_source_gradients(self, logits_fn):
        """The file's logits with the source's gradients."""

        def straight_through(x):
            logits = self._source_logits(x)
            return logits + tf.stop_gradient(logits_fn(x) - logits)

        return straight_through

"""Attacks on a network without gradients, by way of another network that has them."""

import tensorflow as tf

from soar_tf.attacks.attack import Attack, as_logits_fn, attack_survivors
from soar_tf.validation import check_choice

WAYS = ("crafted", "straight-through")


class Transferred(Attack):
    """A white-box attack on a network that cannot be differentiated, such as a LiteRT file.

    Another network, best the one that the file was made of, lends its gradients in two ways:

    * `"crafted"`: the examples are crafted on the source alone, by its strongest iterate where the
      attack has a fixed amount of work; the file only classifies them;
    * `"straight-through"`: the attack runs on the file's own logits z(x), and gets the source's
      gradients for them (BPDA, Athalye et al. 2018, arXiv:1802.00420):
      s(x) + stop_gradient(z(x) - s(x)). So it goes on until the file itself is fooled.

    An evaluation runs both, each on what the one before it left; attacks that use no gradients run
    on the file as they are.

    Args:
        attack: The `Attack`.
        source: The network that has gradients: a `keras.Model` giving logits, or a callable
            `[B, ...] -> [B, C]`.
        name: What the source is called, for the report.
        way: `"crafted"` or `"straight-through"`, for one by itself; `None` means both, as stages.

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
        """The attack's arguments, and the source's name."""
        own = {"attack": type(self.crafted_by).__name__, "source": self.name, "way": self.way}
        return own | self.crafted_by.get_config()

    def stages(self):
        """Both ways of each of the attack's stages, see `Attack.stages`."""
        if self.way is not None:
            return [(self.way, self)]
        parts = self.crafted_by.stages()
        found = []
        for stage, attack in parts:
            if not attack.needs_gradients:
                found.append((stage, attack))
                continue
            for way in WAYS:
                label = way if len(parts) == 1 else f"{stage} {way}"
                found.append((label, Transferred(attack, self.source, self.name, way)))
        return found

    def search(self, logits_fn, x, y, keys):
        if self.way == "crafted":
            return self._craft(x, y, keys)
        if self.way == "straight-through":
            return self.crafted_by.search(self._lent(logits_fn), x, y, keys)
        crafted = self._craft(x, y, keys)
        # The search begins at the clean image again: it is another attack, not a continuation.
        result = attack_survivors(self.crafted_by, self._lent(logits_fn), x, y, keys)
        wrong = tf.argmax(logits_fn(crafted), axis=1, output_type=y.dtype) != y
        return tf.where(tf.reshape(wrong, [-1] + [1] * (len(x.shape) - 1)), crafted, result)

    def _craft(self, x, y, keys):
        if type(self.crafted_by).perturb is not Attack.perturb:
            return self.crafted_by.perturb(self._source_logits, x, y, keys)
        return attack_survivors(self.crafted_by, self._source_logits, x, y, keys)

    def _lent(self, logits_fn):
        """The file's logits with the source's gradients."""

        def lent(x):
            logits = self._source_logits(x)
            return logits + tf.stop_gradient(logits_fn(x) - logits)

        return lent

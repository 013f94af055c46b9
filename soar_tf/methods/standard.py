"""Standard training: the plain loss on clean images."""

from soar_tf.methods.method import Method, Terms


class Standard(Method):
    r"""Minimises $\ell(x, y)$: the baseline, and the starting point for SOAR.

    Example:

    >>> import soar_tf
    >>> soar_tf.RobustModel(soar_tf.networks.mlp(), soar_tf.methods.Standard()).method
    Standard()
    """

    needs_input_gradient = False

    def terms(self, forward, x, y, *, loss_fn, keys):
        logits = forward.training(x)
        return Terms(loss=loss_fn(y, logits), logits=logits)

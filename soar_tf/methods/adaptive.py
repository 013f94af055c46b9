"""An adaptive penalty weight: high after the penalty jumps, decaying otherwise."""

import tensorflow as tf

# Steps of history before a jump can be detected, as in the authors' code.
FIRST_STEPS = 3


class JumpRule:
    r"""How ELLE-A's weight changes from one step to the next (arXiv:2401.11618).

    Let $e_t$ be the mean penalty of the batch in step t, and $m_t$ and $s_t$ the mean and the
    standard deviation (over n, not n - 1) of $e_1, \dots, e_{t-1}$. Then

    $$\lambda_{t+1} = \begin{cases} \lambda_{\max} & \text{if } t > 3 \text{ and }
    e_t > m_t + k s_t \\ \gamma \lambda_t & \text{otherwise,} \end{cases} \qquad \lambda_1 = 0.$$

    The rule itself is stateless. The state is a vector of four numbers: the weight for the next
    step, and the number, the mean and the summed squared deviation of the penalties so far.

    Args:
        largest: $\lambda_{\max}$, a number or a scalar tensor.
        decay: $\gamma$, likewise.
        deviations: k, likewise.

    Example:

    >>> from soar_tf.methods.adaptive import JumpRule
    >>> rule = JumpRule(4000.0, 0.99, 2.0)
    >>> state = rule.initial()
    >>> for error in (0.1, 0.12, 0.1, 0.5, 0.1):
    ...     state = rule.after(state, error)
    >>> round(float(state[0]), 3)
    3960.0
    """

    def __init__(self, largest, decay, deviations):
        self.largest, self.decay, self.deviations = largest, decay, deviations

    @staticmethod
    def initial():
        """The state before the first step: float32 `[4]`."""
        return tf.zeros([4], tf.float32)

    def after(self, state, error):
        """The state after a step.

        Args:
            state: float32 `[4]`, the state before it.
            error: The step's mean penalty over the global batch, a scalar. A value that is not
                finite leaves the state unchanged.

        Returns:
            float32 `[4]`.
        """
        error = tf.cast(error, tf.float32)
        weight, count, mean, square_sum = tf.unstack(state)
        deviation = tf.sqrt(square_sum / tf.maximum(count, 1.0))
        jumped = (count >= FIRST_STEPS) & (error > mean + self.deviations * deviation)
        weight = tf.where(jumped, self.largest, self.decay * weight)
        count += 1.0
        distance = error - mean
        mean += distance / count
        square_sum += distance * (error - mean)
        updated = tf.stack([weight, count, mean, square_sum])
        return tf.where(tf.math.is_finite(error), updated, state)

"""Fast adversarial training against its formula."""

import numpy as np
import pytest
from linear_oracle import cross_entropy, gradient, keys, sign_steps, terms, uniform_start, x

import soar_tf
from soar_tf.ops import random


@pytest.mark.parametrize(("step_size", "length"), [(None, 0.25), ("0.1", 0.1)])
def test_one_step_from_a_random_start(step_size, length):
    method = soar_tf.methods.Fast(epsilon="1/5", step_size=step_size)
    start = x + uniform_start(random.derive(keys(), 0), 0.2)
    end = sign_steps(start, x, gradient, 1, length, 0.2)
    np.testing.assert_allclose(terms(method).loss, cross_entropy(end), rtol=1e-5)
    assert method.get_config() == {"epsilon": 0.2, "step_size": step_size and 0.1}


def test_step_reaches_beyond_the_ball_and_is_clipped():
    end = sign_steps(x + 0.2, x, np.ones_like, 1, 0.25, 0.2)
    np.testing.assert_allclose(end, x + 0.2)
    assert soar_tf.methods.Fast(0.2).attack.step_size == pytest.approx(0.25)

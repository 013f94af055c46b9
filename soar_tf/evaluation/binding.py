"""What a state file belongs to: a network, images, labels, a seed and the libraries' versions."""

import keras
import numpy as np
import tensorflow as tf

from soar_tf.evaluation.state import fingerprint

# A resumed evaluation's outputs may differ from the stored ones by rounding, relative to the range.
_SAME_OUTPUTS = 1e-3


def bind(state, network, x, y, logits, seed, shard=None):
    """Binds a state to a network, its images and labels, and a seed; refuses one of others."""
    weights = network.get_weights() if hasattr(network, "get_weights") else None
    state.match(
        tensorflow=tf.__version__,
        keras=keras.__version__,
        numpy=np.__version__,
        number_of_images=len(x),
        images=fingerprint(x),
        labels=fingerprint(y.astype(np.int64)),
        network=fingerprint(*weights) if weights else "a function",
        seed=seed,
        shard="none" if shard is None else str(shard),
    )
    state.match_outputs(logits, _SAME_OUTPUTS)
    positions = None if shard is None else shard.positions()
    state.check_possible(y, logits.shape[1], x.shape[1:], positions)

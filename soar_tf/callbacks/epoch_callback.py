"""The base of all callbacks: the data, the network and the results after an epoch."""

import re

import keras

from soar_tf.attacks import get as get_attack
from soar_tf.errors import InputError
from soar_tf.evaluation import Evaluator
from soar_tf.evaluation.data import arrays
from soar_tf.models import networks
from soar_tf.training import RobustModel
from soar_tf.validation import check_integer, check_seed


class EpochCallback(keras.callbacks.Callback):
    """Measures a network after an epoch and writes the results into the epoch's logs.

    Attacks given by name get the norm and the radius of the `RobustModel`'s method, unless the name
    sets them or the method has none.

    A subclass implements `measure`, and `prepare` if it has graphs, which must be compiled once and
    not in each epoch. The first and the last epoch of a `fit` and every `every`-th epoch (from 0)
    are measured; the epochs in between repeat the last results, since `CSVLogger` takes its columns
    from the first epoch and requires them later. A resumed run of `soar_tf.runs` repeats them as
    well.

    Args:
        data: See `soar_tf.evaluation.data.arrays`.
        attacks: Attacks of `self.evaluator`.
        every: Number of epochs between measurements.
        limit: Number of examples, from the start; `None` for all.
        seed: Seed of all noise, the same in every epoch, so epochs are comparable.
        batch_size: Number of examples to process at once.

    Attributes:
        x: float32 `[N, ...]`, the images.
        y: int `[N]`, the labels.
        network: The Keras model that is measured, available once `fit` has started.
        evaluator: `soar_tf.evaluation.Evaluator` of this network.
    """

    def __init__(self, data, attacks=(), *, every=1, limit=None, seed=0, batch_size=256):
        super().__init__()
        self.x, self.y = arrays(data, limit)
        self.every = check_integer(every, "every", minimum=1)
        self.seed = check_seed(seed)
        self.batch_size = check_integer(batch_size, "batch_size", minimum=1)
        self.network = None
        self._attacks = list(attacks)
        # Rejects an invalid attack before training.
        self.evaluator = self.evaluator_of(None)
        self._results = self._restored = None

    def checkpoint_state(self):
        """The state to save in a checkpoint: the last results, JSON-serializable."""
        return self._results and {name: float(value) for name, value in self._results.items()}

    def restore_state(self, state):
        """Restores the result of `checkpoint_state` before `fit` resumes; ignores anything else."""
        numbers = isinstance(state, dict) and all(type(n) in (int, float) for n in state.values())
        self._restored = state if numbers else None

    def prepare(self, network):
        """Builds what depends on the network; called once per network."""

    def measure(self, epoch):
        """The results after `epoch`, a dictionary of floats."""
        raise NotImplementedError(f"{type(self).__name__} does not define `measure`.")

    def evaluator_of(self, network):
        """An `Evaluator`; a network that diverged scores 0 instead of ending the training."""
        return Evaluator(
            network,
            [self.resolved(attack) for attack in self._attacks],
            seed=self.seed,
            batch_size=self.batch_size,
            allow_non_finite=True,
            adaptive=False,
        )

    @property
    def threat_model(self):
        """The threat model of the model's training method, or `None`."""
        method = getattr(self.model, "method", None) if self._trains_robustly() else None
        return None if method is None else method.threat_model

    def _trains_robustly(self):
        return isinstance(getattr(self, "_model", None), RobustModel)

    def resolved(self, attack):
        """An `Attack`; a name is resolved in the threat model of the training method.

        Args:
            attack: An `Attack` or a name.
        """
        threat = self.threat_model
        defaults = {} if threat is None else {"norm": threat.norm, "epsilon": threat.epsilon}
        return get_attack(attack, **defaults)

    def on_train_begin(self, logs=None):
        self._results, self._restored = self._restored, None
        network = network_of(self.model)
        if network is self.network:
            return
        check_network(network, self.x.shape[1:])
        evaluator = self.evaluator_of(network)
        evaluator.check(self.x, self.y)
        self.prepare(network)
        self.network, self.evaluator = network, evaluator

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == (self.params or {}).get("epochs")
        if self._results is None or last or epoch % self.every == 0:
            self._results = self.measure(epoch)
        if logs is not None:
            logs.update(self._results)


def network_of(model):
    """The network inside a `RobustModel`, or the model itself."""
    # In other models, an attribute of this name may be only a part of the model.
    return model.network if isinstance(model, RobustModel) else model


def check_network(network, image_shape, argument="model"):
    """Rejects a Keras model that ends in a softmax or takes images of another shape.

    Args:
        network: A built `keras.Model`.
        image_shape: Shape of one image.
        argument: Name of the model in the error message.

    Raises:
        InputError: If the model is rejected.
    """
    if (head := networks.softmax_head(network)) is not None:
        raise InputError(
            f"`{argument}` must give logits, but its last layer {head.name!r} is a softmax, which "
            "hides gradients; train soar_tf.networks.to_logits(model) with from_logits=True."
        )
    shape = getattr(network, "input_shape", None)
    if not isinstance(shape, tuple) or not all(n is None or isinstance(n, int) for n in shape):
        return
    matches = len(shape) == len(image_shape) + 1 and all(
        expected is None or expected == side
        for expected, side in zip(shape[1:], image_shape, strict=True)
    )
    if not matches:
        raise InputError(
            f"`data` must have images of shape {shape[1:]}, the input shape of `{argument}`. "
            f"Received: {tuple(image_shape)}."
        )


def log_name(attack):
    """An attack's name as part of a log key: letters, digits, `-` and `_`."""
    name = attack if isinstance(attack, str) else type(attack).__name__.lower()
    return re.sub(r"[^\w-]+", "_", name).strip("_")

"""What the callbacks share: the data, the network and figures after an epoch."""

import re

import keras

from soar_tf.attacks import get as get_attack
from soar_tf.errors import InputError
from soar_tf.evaluation import Evaluator
from soar_tf.evaluation.data import arrays
from soar_tf.models import networks
from soar_tf.training import RobustModel
from soar_tf.validation import check_integer


class EpochCallback(keras.callbacks.Callback):
    """Measures a network after an epoch and writes the figures into the epoch's logs.

    Attacks given by name have the norm and the radius of the `RobustModel`'s method, where the name
    sets none and the method has them.

    A subclass implements `measure`, and `prepare` if it keeps graphs of its own: those must be
    compiled once, and not in each epoch. The first and the last epoch of a `fit` and every
    `every`-th (from epoch 0 on) are measured; the epochs between repeat the last figures, since
    `CSVLogger` takes its columns from the first epoch and refuses none later. A training run of
    `soar_tf.runs` that is resumed repeats them, too.

    Args:
        data: See `soar_tf.evaluation.data.arrays`.
        attacks: Attacks of `self.evaluator`.
        every: Number of epochs from one measurement to the next.
        limit: Number of examples, the first ones; `None` takes all.
        seed: Seed of all noise, equal in every epoch, so that epochs can be compared.
        batch_size: Examples worked on together.

    Attributes:
        x: float32 `[N, ...]`, the images.
        y: int `[N]`, the labels.
        network: The Keras model that is measured, known from the beginning of `fit` on.
        evaluator: `soar_tf.evaluation.Evaluator` of this network.
    """

    def __init__(self, data, attacks=(), *, every=1, limit=None, seed=0, batch_size=256):
        super().__init__()
        self.x, self.y = arrays(data, limit)
        self.every = check_integer(every, "every", minimum=1)
        self.seed = check_integer(seed, "seed", minimum=0)
        self.batch_size = check_integer(batch_size, "batch_size", minimum=1)
        self.network = None
        self._attacks = list(attacks)
        # Refuses a bad attack before training.
        self.evaluator = self.evaluator_of(None)
        self._figures = self._restored = None

    def checkpoint_state(self):
        """What a checkpoint has to hold of the callback: its last figures; JSON-serializable."""
        return self._figures and {name: float(value) for name, value in self._figures.items()}

    def restore_state(self, state):
        """Takes what `checkpoint_state` gave, before a `fit` that resumes; ignores all else."""
        numbers = isinstance(state, dict) and all(type(n) in (int, float) for n in state.values())
        self._restored = state if numbers else None

    def prepare(self, network):
        """Builds what depends on the network; called once a network."""

    def measure(self, epoch):
        """The figures after `epoch`, a dictionary of floats."""
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
        """The threat model of the method that trains the model, or `None`."""
        method = getattr(self.model, "method", None) if self._trains_robustly() else None
        return None if method is None else method.threat_model

    def _trains_robustly(self):
        return isinstance(getattr(self, "_model", None), RobustModel)

    def resolved(self, attack):
        """An `Attack`; by name, in the threat model of the method that trains the model.

        Args:
            attack: An `Attack` or a name.
        """
        threat = self.threat_model
        known = {} if threat is None else {"norm": threat.norm, "epsilon": threat.epsilon}
        return get_attack(attack, **known)

    def on_train_begin(self, logs=None):
        self._figures, self._restored = self._restored, None
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
        if self._figures is None or last or epoch % self.every == 0:
            self._figures = self.measure(epoch)
        if logs is not None:
            logs.update(self._figures)


def network_of(model):
    """The network inside a `RobustModel`, else the model itself."""
    # Only there: in a user's own model, an attribute of this name may be a part of it.
    return model.network if isinstance(model, RobustModel) else model


def check_network(network, image_shape, argument="model"):
    """Refuses a Keras model that ends in a softmax or takes other images.

    Args:
        network: A built `keras.Model`.
        image_shape: Shape of one image.
        argument: What the model is called in the error.

    Raises:
        InputError: With what to do.
    """
    if (head := networks.softmax_head(network)) is not None:
        raise InputError(
            f"`{argument}` must give logits, but its last layer {head.name!r} is a softmax, which "
            "hides gradients; train soar_tf.networks.to_logits(model) with from_logits=True."
        )
    wanted = getattr(network, "input_shape", None)
    if not isinstance(wanted, tuple) or not all(n is None or isinstance(n, int) for n in wanted):
        return
    fits = len(wanted) == len(image_shape) + 1 and all(
        w is None or w == n for w, n in zip(wanted[1:], image_shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"`data` must hold images of shape {wanted[1:]}, which the `{argument}` takes. "
            f"Received: {tuple(image_shape)}."
        )


def log_name(attack):
    """An attack's name as a part of a log key: letters, digits, `-` and `_`."""
    name = attack if isinstance(attack, str) else type(attack).__name__.lower()
    return re.sub(r"[^\w-]+", "_", name).strip("_")

"""What `soar-tf doctor` tries on every accelerator: one step of SOAR in each mode of training.

The step is compared with the same step on the processor, which `STORED_STEP` of the doctor checks.
Its penalty is a finite difference of gradients over a step h of 0.001 to 0.03 (SOAR's default), so
that rounding which a first derivative survives is as large as the penalty; its network has
max-pooling, whose second derivative XLA takes after rounding to bfloat16, unless it is replaced.
"""

import contextlib
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from soar_tf import methods
from soar_tf.models.precision import set_precision
from soar_tf.training import RobustModel


@dataclasses.dataclass(frozen=True)
class Mode:
    """A way in which an accelerator may be used.

    Attributes:
        name: Its display name.
        tolerance: Largest relative difference of a step's weight change from the processor's.
        trap: What is known to go wrong there, and what to do.
        xla: Whether the step is compiled by XLA.
        precision: The layers' precision.
        tf32: Whether TensorFlow may round float32 products to TF32, which is its default.
    """

    name: str
    tolerance: float
    trap: str
    xla: bool = False
    precision: str = "float32"
    tf32: bool = False


MODES = (
    Mode(
        "plain",
        0.01,
        "float32 itself is wrong here; do not trust any result of this device: update its driver "
        "and install soar-tf anew",
    ),
    Mode(
        "XLA",
        0.01,
        "XLA's second derivatives are wrong here (it rounds max-pooling's to bfloat16); train with "
        "jit_compile=False",
        xla=True,
    ),
    Mode(
        "mixed precision",
        0.1,
        "half precision reaches the curvature here, and a finite difference of rounded gradients "
        "is noise; train with --precision float32",
        precision="mixed_float16",
    ),
    Mode(
        "TF32",
        0.01,
        "TensorFlow's default rounds float32 products to 10 bits here, and SOAR's finite "
        "difference of such gradients is noise; set NVIDIA_TF32_OVERRIDE=0, or call "
        "tf.config.experimental.enable_tensor_float_32_execution(False) first",
        tf32=True,
    ),
)


def found():
    """The names of this machine's accelerators, `"/device:GPU:0"` and so on."""
    return [d.name for d in tf.config.list_logical_devices() if d.device_type != "CPU"]


@contextlib.contextmanager
def tf32(enabled):
    """Context in which TF32 is allowed or not; the setting comes back afterwards."""
    setting = tf.config.experimental
    before = setting.tensor_float_32_execution_enabled()
    setting.enable_tensor_float_32_execution(enabled)
    try:
        yield
    finally:
        setting.enable_tensor_float_32_execution(before)


def compare(device, mode, reference):
    """How far a step of SOAR on a device is from the processor's.

    Args:
        device: The device's name.
        mode: A `Mode`.
        reference: `weight_change("/device:CPU:0", MODES[0])`.

    Returns:
        `|change - reference| / |reference|` over all weights, l2.
    """
    change = weight_change(device, mode)
    return float(np.linalg.norm(change - reference) / np.linalg.norm(reference))


def weight_change(device, mode):
    """What one step of SOAR, from known weights and without clip, adds to the weights.

    Args:
        device: The device's name.
        mode: A `Mode`.

    Returns:
        float64 `[P]`, all weights in a row.
    """
    with tf32(mode.tf32), tf.device(device):
        network = _known_network()
        set_precision(network, mode.precision)
        before = _flat(network)
        model = RobustModel(network, methods.SOAR(epsilon=0.1, norm_clip=None), seed=1)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=mode.xla)
        x, y = _waves(8, 8, 8, 1) / 2 + 0.5, np.arange(8) % 3
        model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0)
        return _flat(network) - before


def _known_network():
    """A convolution, max-pooling and a smooth layer, with weights that no initializer chooses."""
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="softplus"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(16, "tanh"),
            layers.Dense(3),
        ]
    )
    network.set_weights([_waves(*weight.shape) for weight in network.weights])
    return network


def _flat(network):
    return np.concatenate([w.ravel() for w in network.get_weights()]).astype("float64")


def _waves(*shape):
    return np.sin(np.arange(1, np.prod(shape) + 1) * 1.7).reshape(shape).astype("float32")

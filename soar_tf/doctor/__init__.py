"""`soar-tf doctor`: does everything that this package stands on work on this machine?"""

import dataclasses
import os
import shutil
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from soar_tf import attacks, datasets, methods
from soar_tf.doctor import accelerators
from soar_tf.errors import InputError
from soar_tf.models import networks
from soar_tf.ops import gradients, losses
from soar_tf.second_order.check import check_second_order
from soar_tf.training import RobustModel

TESTED = {"tensorflow": ((2, 21), (2, 22)), "keras": ((3, 14), (3, 16))}
OPTIONAL = {"matplotlib": "plots", "tensorboard": None}
MINIMUM_FREE_BYTES = 2**30

# What one step of SOAR gives for `_known_network` on `_known_images`: (loss with the penalty,
# penalty, l2 norm of the weights after the step). Stored by this function on a CPU in float32.
STORED_STEP = (4.27631, 6.94676, 9.02062)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        status: `"ok"`, `"warning"` (works, but see the advice) or `"problem"`.
        found: What was found, in a few words.
        advice: What to do about it; empty if there is nothing to do.
    """

    name: str
    status: str
    found: str
    advice: str = ""

    def to_dict(self):
        """The finding, JSON-serializable."""
        return dataclasses.asdict(self)


def examine(data_dir=None, workdir="."):
    """Looks at versions, devices, settings and data sets, and runs the self-test.

    Args:
        data_dir: Folder of tensorflow-datasets, or `None` for its default.
        workdir: Folder in which runs would be written.

    Yields:
        A `Finding` each, as it is found.
    """
    yield from _versions()
    yield from _devices()
    yield _settings()
    yield _disk(workdir)
    yield _datasets(data_dir)
    for name, test in SELF_TEST.items():
        yield _tested(name, test)
    yield from _accelerators()


def _accelerators():
    """The self-test on every accelerator, and a step of SOAR in every mode of training."""
    devices = accelerators.found()
    if not devices:
        yield Finding("accelerators", "ok", "none: what a GPU would compute was not tested")
        return
    reference = accelerators.weight_change("/device:CPU:0", accelerators.MODES[0])
    for device in devices:
        short = device.rpartition("device:")[2]
        for name, test in SELF_TEST.items():
            with accelerators.tf32(False), tf.device(device):
                yield _tested(f"{name}, {short}", test)
        for mode in accelerators.MODES:
            yield _in_mode(device, short, mode, reference)


def _in_mode(device, short, mode, reference):
    """A mode's finding; it names the trap that the device meets."""
    name = f"{mode.name}, {short}"
    try:
        error = accelerators.compare(device, mode, reference)
    except Exception as error:  # whatever a driver raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return Finding(name, "problem", reason, mode.trap)
    found = f"a step of SOAR is off by {error:.0e}, allowed is {mode.tolerance:.0e}"
    good = error <= mode.tolerance  # NaN is not
    return Finding(name, "ok" if good else "problem", found, "" if good else mode.trap)


def _versions():
    import platform

    yield Finding("python", "ok", platform.python_version())
    for name, (low, high) in TESTED.items():
        version = _version(name) or _version(f"{name}-cpu") or "0"
        inside = low <= tuple(int(part) for part in version.split(".")[:2]) < high
        span = f"{low[0]}.{low[1]} to below {high[0]}.{high[1]}"
        yield Finding(
            name,
            "ok" if inside else "warning",
            version,
            "" if inside else f"tested are {span}: pip install 'soar-tf'",
        )
    if _version("tensorflow") and _version("tensorflow-cpu"):
        yield Finding(
            "two TensorFlows",
            "problem",
            "tensorflow and tensorflow-cpu own the same folder",
            "pip uninstall tensorflow tensorflow-cpu, then pip install tensorflow",
        )
    for name, extra in OPTIONAL.items():
        version = _version(name)
        install = f"pip install 'soar-tf[{extra}]'" if extra else f"pip install {name}"
        yield Finding(name, "ok", version or f"not installed (optional: {install})")


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices():
    gpus = [device.name for device in tf.config.list_physical_devices("GPU")]
    yield Finding("devices", "ok", f"{os.cpu_count()} CPU cores, {len(gpus)} GPUs")
    if not gpus and Path("/proc/driver/nvidia/version").exists():
        yield Finding(
            "unused GPU",
            "warning",
            "an NVIDIA driver is here, but TensorFlow sees no GPU",
            "pip install 'soar-tf[gpu]'",
        )


def _settings():
    found = {
        "floatx": (keras.config.floatx(), "float32"),
        "image_data_format": (keras.config.image_data_format(), "channels_last"),
    }
    wrong = [
        f"{name} is {value}, not {good}" for name, (value, good) in found.items() if value != good
    ]
    return Finding(
        "keras settings",
        "problem" if wrong else "ok",
        "; ".join(wrong) or "as they should be",
        "edit ~/.keras/keras.json" if wrong else "",
    )


def _disk(workdir):
    free = shutil.disk_usage(workdir).free
    enough = free >= MINIMUM_FREE_BYTES and os.access(workdir, os.W_OK)
    return Finding(
        "disk",
        "ok" if enough else "warning",
        f"{free / 2**30:.1f} GiB free here" if os.access(workdir, os.W_OK) else "not writable here",
        "" if enough else "choose a --workdir on another disk",
    )


def _datasets(data_dir):
    root = datasets.tfds_folder(data_dir)
    prepared = [name for name in datasets.NAMES if any(root.glob(f"{name}/*/dataset_info.json"))]
    if data_dir is not None and not prepared:
        return Finding(
            "data sets",
            "warning",
            f"digits; none in {root}",
            "give --data-dir the folder that "
            "holds cifar10/, mnist/, ..., or drop it: they are downloaded when first used",
        )
    return Finding("data sets", "ok", f"{', '.join(['digits', *prepared])} (in {root})")


def _tested(name, test):
    """A self-test's finding; whatever it raises is a problem to be reported, not a crash."""
    try:
        return Finding(name, "ok", test())
    except (Exception, InputError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Finding(
            name,
            "problem",
            reason[:200],
            "do not trust results from here: install the versions above anew, in a fresh "
            "environment, and run `soar-tf doctor` again",
        )


def _agree(what, value, expected, tolerance):
    error = float(np.max(np.abs(np.asarray(value) - expected) / np.maximum(np.abs(expected), 1.0)))
    if not error <= tolerance:
        raise ArithmeticError(f"{what} is off by {error:.1e}, allowed is {tolerance:.0e}")
    return f"off by {error:.0e}"


def _input_gradient():
    """Cross-entropy of a linear network: the gradient is (softmax - one-hot) times the weights."""
    weights = tf.constant(_waves(4, 3))
    x, y = tf.constant(_waves(5, 4)), tf.range(5) % 3
    _, gradient = gradients.input_gradient(lambda x: losses.cross_entropy(y, x @ weights), x)
    logits = x.numpy().astype("float64") @ weights.numpy()
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = (softmax - np.eye(3)[y.numpy()]) @ weights.numpy().T
    return _agree("the input gradient", gradient, expected, 1e-5)


def _second_order():
    """The Hessian of sum(x^4) is 12 x^2; then every layer of a network with pooling."""
    x, v = tf.constant(_waves(3, 6)), tf.constant(_waves(3, 6) + 0.5)
    product = gradients.hvp_exact(lambda x: tf.reduce_sum(x**4, axis=1), x, v)
    found = _agree("the Hessian-vector product", product, 12 * x.numpy() ** 2 * v.numpy(), 1e-5)
    check_second_order(networks.cnn2(width=0.1), quick=True).raise_if_wrong()
    return found


def _attack():
    """PGD stays in its ball, and raises the loss."""
    network, x, y = _known_network(), *_known_images()
    x_adv = attacks.PGD(epsilon=0.1, steps=3)(network, x, y).numpy()
    if np.abs(x_adv - x).max() > 0.1 + 1e-6 or x_adv.min() < 0 or x_adv.max() > 1:
        raise ArithmeticError("PGD left its ball or the pixel range")
    gain = losses.cross_entropy(y, network(x_adv)) - losses.cross_entropy(y, network(x))
    if float(tf.reduce_min(gain)) < 0:
        raise ArithmeticError("PGD lowered the loss that it should raise")
    return "stays in its ball and raises the loss"


def soar_step():
    """One training step of SOAR from known weights; see `STORED_STEP` for what comes back."""
    network, (x, y) = _known_network(), _known_images()
    # A large h: the finite difference is then not a matter of rounding.
    method = methods.SOAR(epsilon=0.1, alpha=0.3, h_min=0.1, norm_clip=None)
    model = RobustModel(network, method, seed=1)
    model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0).history
    size = np.sqrt(sum((weight.numpy() ** 2).sum() for weight in network.weights))
    return history["loss"][0], history["penalty"][0], float(size)


def _soar_step():
    return _agree("a step of SOAR", soar_step(), np.array(STORED_STEP), 1e-3)


def _known_network():
    """A smooth network whose weights no initializer chooses."""
    network = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, "tanh"),
            keras.layers.Dense(3),
        ]
    )
    network.set_weights([_waves(*weight.shape) for weight in network.weights])
    return network


def _known_images():
    return (_waves(6, 4, 4, 1) + 1) / 2, np.arange(6) % 3


def _waves(*shape):
    """Numbers in [-1, 1] that are the same everywhere."""
    return np.sin(np.arange(1, np.prod(shape) + 1) * 1.7).reshape(shape).astype("float32")


SELF_TEST = {
    "gradients": _input_gradient,
    "second order": _second_order,
    "attack": _attack,
    "SOAR step": _soar_step,
}

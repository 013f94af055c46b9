"""Named training presets: a method, its arguments and training settings, and why.

This module imports neither TensorFlow nor Keras, for the command line's sake.
"""

import dataclasses

from soar_tf import registry
from soar_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Preset:
    """What `soar-tf train --preset NAME` stands for; flags and a config file win over it.

    Attributes:
        summary: One line: what it is for.
        settings: `soar_tf.runs.config.TrainConfig` fields; `method` is one of them.
        evidence: Where its figures are, a path in the repository.
    """

    summary: str
    settings: dict
    evidence: str


# A preset is one object here and one line in `soar_tf/registry/tables.py`. It needs results: the
# evidence file must exist.
ROBUST = Preset(
    "One-step adversarial training for longer: PGD-7's robustness for less. No SOAR in it.",
    {"method": "fast", "epochs": 30},
    "saved_models/cifar10-cnn4-robust/card.json",
)
SOAR_PER_EXAMPLE = Preset(
    "SOAR with the paper's constants read per example: high clean accuracy.",
    {"method": "soar", "method_args": {"preset": "per_example"}},
    "docs/results/presets/per_example.json",
)
SOAR_BATCH_MEAN = Preset(
    "SOAR with the paper's constants read for batch means: more robust, less clean accuracy.",
    {"method": "soar", "method_args": {"preset": "batch_mean"}},
    "docs/results/presets/batch_mean.json",
)


def get(name):
    """The `Preset` of a name.

    Raises:
        InputError: For an unknown name.

    Example:

    >>> from soar_tf.runs import presets
    >>> presets.get("soar-batch-mean").settings["method"]
    'soar'
    """
    return registry.PRESETS.find(name)


def merged(name, values):
    """A preset's settings, overridden by a config file's and flags' values.

    Args:
        name: The preset's name, or `None` for no preset.
        values: `TrainConfig` fields that were set.

    Returns:
        `TrainConfig` fields.

    Raises:
        InputError: For an unknown preset, or a method that is not the preset's.
    """
    if name is None:
        return values
    settings = get(name).settings
    result = {**settings, **values}
    if result["method"] != settings["method"]:
        raise InputError(
            f"`preset` {name!r} is for the method {settings['method']!r}. Received: method "
            f"{result['method']!r}."
        )
    arguments = {**settings.get("method_args", {}), **values.get("method_args", {})}
    return {**result, "method_args": arguments}

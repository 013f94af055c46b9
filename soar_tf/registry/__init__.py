"""Everything that has a name: methods, attacks, networks, data sets and more.

Importing this package loads none of them, so that the command line completes names at once.
"""

from soar_tf.registry.configurable import Configurable, argument_names, construct, defaults
from soar_tf.registry.registry import Registry
from soar_tf.registry.tables import (
    ATTACKS,
    CORRUPTIONS,
    DATASETS,
    EXPORT_FORMATS,
    METHODS,
    NETWORKS,
    PLOTS,
    PRESETS,
)

__all__ = [
    "ATTACKS",
    "CORRUPTIONS",
    "DATASETS",
    "EXPORT_FORMATS",
    "METHODS",
    "NETWORKS",
    "PLOTS",
    "PRESETS",
    "Configurable",
    "Registry",
    "argument_names",
    "construct",
    "defaults",
]

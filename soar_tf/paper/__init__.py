"""The SOAR paper again: each table, figure and section by one command, one module each.

`soar-tf reproduce NAME` loads the module of that name and calls its `report(study)`. This file
imports nothing heavy, because the command line's help names the entries.
"""

import importlib

from soar_tf.validation import check_choice

ENTRIES = {
    "table1": "clean accuracy and white-box l-infinity attacks",
    "table2": "white-box l2 attacks",
    "table3": "attacks transferred from other networks",
    "table4": "SOAR's three initialisations",
    "table5": "mean top probability: a sign of gradient masking",
    "table6": "rotations and translations",
    "table7": "Gaussian noise",
    "readings": "which reading of SOAR's constants, and which open choices, are the paper's",
    "section2": "the over-parametrised linear regression and its attack",
    "section4": "the ladder of bounds, and the penalty of a logistic classifier",
    "figure1": "the loss along a line, exactly and by Taylor expansions: one image",
    "figure2": "the penalty from one and from many random directions, during training",
    "figure3": "clean and PGD20 accuracy during training for several lambda",
    "figure4": "figure 1 for more images",
}


def load(name):
    """The module of an entry.

    Args:
        name: One of `ENTRIES`.

    Returns:
        The module: `DATASET` (the data set by default, or `None` where there is none), `NETWORKS`
        (names of the networks that it needs) and `report(study)`.

    Raises:
        InputError: For an unknown name.

    Example:

    >>> from soar_tf import paper
    >>> paper.load("section2").NETWORKS
    ()
    """
    check_choice(name, "name", ENTRIES)
    return importlib.import_module(f"{__name__}.{name}")

"""The SOAR paper, reproduced: each table, figure and section by one command.

`soar-tf reproduce NAME` loads the entry of that name and calls its `report(study)`. This file
imports nothing heavy, because the command line's help lists the entries.
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
    "readings": "which interpretation of SOAR's constants is the paper's",
    "normalization": "standardised images, as in the authors' code, next to fixed scaling",
    "section2": "the over-parametrised linear regression and its attack",
    "section4": "the ladder of bounds, and the penalty of a logistic classifier",
    "figure1": "the loss along a line and its Taylor expansions, for one image",
    "figure2": "the penalty from one and from many random directions, during training",
    "figure3": "clean and PGD20 accuracy during training for several lambda",
    "figure4": "figure 1 for more images",
}

# The modules of entries that are objects; every other entry is a module.
_MODULES = {
    **dict.fromkeys((*(f"table{n}" for n in range(1, 8)), "normalization"), "tables"),
    **dict.fromkeys(("figure1", "figure4"), "line"),
}


def load(name):
    """An entry.

    Args:
        name: One of `ENTRIES`.

    Returns:
        A module or an object with `DATASET` (the default data set, or `None` if it needs none),
        perhaps `DATASETS` (where not all are possible), `NETWORKS` (names of the networks that it
        needs) and `report(study)`.

    Raises:
        InputError: For an unknown name.

    Example:

    >>> from soar_tf import paper
    >>> paper.load("section2").NETWORKS
    ()
    """
    check_choice(name, "name", ENTRIES)
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, name)}")
    return getattr(module, name) if name in _MODULES else module

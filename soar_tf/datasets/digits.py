"""The 1,797 handwritten digits that ship with the package (see digits.LICENSE.txt)."""

import importlib.resources

import numpy as np

from soar_tf.datasets.dataset import SPLITS, Dataset
from soar_tf.datasets.source import Source
from soar_tf.datasets.split import Split


def load(wanted):
    """Reads the digits: 8x8x1, 1,197 train, 200 validation and 400 test images.

    Args:
        wanted: Names of the splits to read.

    Returns:
        `(dataset, available)`: the `Dataset` and the names of all its splits.
    """
    resource = importlib.resources.files("soar_tf.datasets") / "digits.npz"
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels, split = (arrays[name] for name in ("images", "labels", "split"))
    splits = {
        name: Split(images[split == index][..., None], labels[split == index], shuffled=True)
        for index, name in enumerate(SPLITS)
        if name in wanted
    }
    provenance = (
        "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998, "
        "doi:10.24432/C50P49, CC BY 4.0), the 1,797 test images, pixels rescaled from 0..16 to "
        "0..255; fixed stratified split 1197/200/400, writers shared between splits."
    )
    names = tuple(str(digit) for digit in range(10))
    return Dataset("digits", 10, (8, 8, 1), splits, names, False, provenance), SPLITS


DIGITS = Source(
    "8x8x1, 10 classes, 1,797 handwritten digits; ships with soar-tf; CC BY 4.0",
    lambda request: load(request.splits),
)

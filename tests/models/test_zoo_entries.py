"""The committed networks of `saved_models/` are what their cards say."""

import io
import zipfile

import h5py
import numpy as np
import pytest
from snippets import ROOT
from test_zoo import tool

from soar_tf import datasets
from soar_tf.evaluation.state import fingerprint
from soar_tf.models import loading, zoo

FOLDER = ROOT / "saved_models"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/card.json"))
# Other machines round otherwise, and an image at the boundary then falls on the other side.
CLEAN_TOLERANCE, ROBUST_TOLERANCE = 1 / 256, 3 / 256


@pytest.fixture(autouse=True)
def _repository(monkeypatch):
    monkeypatch.delenv(zoo.VARIABLE, raising=False)


def test_the_markdown_is_that_of_the_cards():
    for path, text in tool.markdown().items():
        assert path.read_text(encoding="utf-8") == text, "python tools/add_to_zoo.py --refresh"


def test_the_zoo_fits_into_a_clone():
    assert tool.size_of(FOLDER) <= zoo.MAX_BYTES
    assert {path.name for path in FOLDER.iterdir()} == {"README.md", *zoo.names()}
    assert zoo.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_loads_and_is_whole(name):
    place, card = zoo.path(name), zoo.card(name)
    assert {path.name for path in place.iterdir()} == {
        zoo.CARD,
        zoo.NETWORK,
        zoo.SAVED_MODEL,
        zoo.README,
    }
    assert card["name"] == name and not {"masking", "weights"} - set(card["report"])
    assert card["report"]["weights"] == card["weights"]
    assert card["weights"] == fingerprint(*zoo.load(name).get_weights())
    assert zoo.figures(card)["autoattack"] is not None
    for part, size in card["files"].items():
        assert tool.size_of(place / part) == size
    tool.check_equal(place, loading.load(place / zoo.NETWORK).input_shape)
    with zipfile.ZipFile(place / zoo.NETWORK) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    assert "optimizer" not in h5py.File(weights)


@pytest.fixture(scope="module")
def cifar10(cifar10_folder):
    return datasets.load("cifar10", data_dir=cifar10_folder)


@pytest.fixture(scope="module")
def cifar10_fingerprint(cifar10):
    return cifar10.fingerprint()


def _skip_unless_trained_on(fingerprint, name):
    """A network that was trained on other pixels is not measured again on these."""
    if zoo.card(name)["data"]["fingerprint"] != fingerprint:
        pytest.skip(f"the card of {name} names a data set of another fingerprint")


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_clean_accuracy_is_found_again(name, cifar10, cifar10_fingerprint):
    _skip_unless_trained_on(cifar10_fingerprint, name)
    check = zoo.card(name)["check"]
    examples = cifar10["test"].take(check["n"])
    right = zoo.load(name)(examples.float_images()).numpy().argmax(axis=1) == examples.labels
    assert np.mean(right) == pytest.approx(check["clean"], abs=CLEAN_TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_accuracy_under_pgd20_is_found_again(
    name, cifar10_folder, cifar10_fingerprint
):
    _skip_unless_trained_on(cifar10_fingerprint, name)
    card = zoo.card(name)
    found = tool.measured(zoo.load(name), card["report"], cifar10_folder)
    assert found["pgd20"] == pytest.approx(card["check"]["pgd20"], abs=ROBUST_TOLERANCE)

"""The tables' measurements against direct computation, on networks that are given."""

import dataclasses

import keras
import numpy as np
import pytest

from soar_tf import paper
from soar_tf.errors import InputError
from soar_tf.paper import measures, published, recipes
from soar_tf.paper.study import Request, Study

EPSILON = 0.15  # the digits' usual radius


def linear(seed, images):
    """A linear classifier by least squares, without training; noise makes the seeds differ."""
    x = images.float_images().reshape(len(images), -1)
    targets = np.eye(10)[images.labels]
    weights = np.linalg.lstsq(x.T @ x + np.eye(64), x.T @ targets, rcond=None)[0]
    weights += 0.02 * np.random.default_rng(seed).normal(size=weights.shape)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    network = keras.Sequential(layers)
    network.set_weights([10.0 * weights.astype("float32"), np.zeros(10, "float32")])
    return network


@pytest.fixture(scope="module")
def networks(digits):
    names = [name for name, recipe in recipes.RECIPES.items() if recipe.pixels is None]
    pairs = [(name, seed) for name in names for seed in range(2)]
    return {pair: linear(i, digits["train"]) for i, pair in enumerate(pairs)}


@pytest.fixture(scope="module")
def models(networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for (name, seed), network in networks.items():
        network.save(folder / f"{name}-seed{seed}.keras")
    return folder


@pytest.fixture
def study(models, tmp_path):
    return Study(Request("table1", "smoke", "digits", None, 2, tmp_path, models), 2)


def test_clean_accuracy_and_fgsm_by_hand(study, networks, digits):
    images = digits["test"].take(32)
    x, y = images.float_images(), images.labels
    network = networks["adv7", 1]
    logits = network.predict(x, verbose=0)
    clean = 100 * np.mean(logits.argmax(axis=1) == y)
    assert measures.accuracy(study, "adv7", 1) == pytest.approx(clean)
    # The input gradient of a linear network's cross-entropy is W (p - y).
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    wrong = shifted / shifted.sum(axis=1, keepdims=True) - np.eye(10)[y]
    moved = x + EPSILON * np.sign(wrong @ network.get_weights()[0].T).reshape(x.shape)
    robust = network.predict(np.clip(moved, 0, 1), verbose=0).argmax(axis=1) == y
    expected = 100 * np.mean(robust & (logits.argmax(axis=1) == y))
    assert measures.accuracy(study, "adv7", 1, "fgsm") == pytest.approx(expected)


def test_progress_names_the_network_that_is_attacked(study):
    seen = []
    watched = Study(dataclasses.replace(study.request, progress=seen.append), 2)
    measures.accuracy(watched, "adv7", 1, "fgsm")
    measures.transfer(watched, ["soar"], "adv7", 0)
    assert seen[0].name == "Adv7, seed 1: fgsm" and seen[0].total <= 32
    assert {progress.name.split(":")[0] for progress in seen} == {"Adv7, seed 1", "Adv7, seed 0"}
    assert seen[-1].done == seen[-1].total
    assert study.progress("adv7", 1) is None


def test_top_probability_by_hand(study, networks, digits):
    logits = networks["soar", 0].predict(digits["test"].take(32).float_images(), verbose=0)
    shifted = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
    expected = 100 * np.mean(shifted.max(axis=1) / shifted.sum(axis=1))
    zero = measures.top_probability(study, "soar", 0, "zero")
    assert zero == pytest.approx(expected, rel=1e-5)
    assert measures.top_probability(study, "soar", 0, "random") != zero
    assert measures.top_probability(study, "soar", 0, "pgd1") < zero  # a step uphill in the loss


def test_transformed_counts_every_image(study):
    clean = measures.accuracy(study, "soar", 0)
    assert measures.transformed(study, "soar", 0, "gaussian-noise:sigma=0") == clean
    assert measures.transformed(study, "soar", 0, "gaussian-noise:sigma=5") < clean


def test_transfer_from_the_network_itself_is_white_box(study):
    found = measures.transfer(study, ("soar", "standard"), "soar", 0)
    white_box = measures.accuracy(study, "soar", 0, "pgd20")
    # Transfer takes the last iterate, white-box any that fools.
    assert white_box <= found["soar"] <= found["standard"]


@pytest.mark.parametrize("name", ["table1", "table4"])
def test_tables_put_every_seed_and_network_in_place(name, study, monkeypatch):
    seen = []

    def fake(study, network, seed, attack=None, **_):
        seen.append((network, seed, attack))
        return 10.0 * len(network) + seed

    monkeypatch.setattr(measures, "accuracy", fake)
    monkeypatch.setattr(
        measures,
        "transfer",
        lambda study, sources, network, seed: {source: float(len(source)) for source in sources},
    )
    (grid,) = paper.load(name).report(study).grids
    assert set(grid.rows) == set(published.TABLES[name])
    for row, cells in grid.rows.items():
        assert set(cells) == {*published.TABLES[name][row], "autoattack"}
        assert cells["clean"] == [10.0 * len(row), 10.0 * len(row) + 1]
    assert ("soar", 1, "autoattack") in seen
    if name == "table4":
        assert grid.rows["soar-zero"]["resnet18"] == [8.0, 8.0]
        assert "| SOAR, PGD1 init |" in grid.markdown()


def test_measurements_are_kept_by_what_they_depend_on(study):
    calls = []

    def measure(**settings):
        return study.measured("test", settings, lambda: calls.append(1) or len(calls))

    network, other = study.network("standard", 0), study.network("standard", 1)
    assert network.digest != other.digest
    assert measure(network=network, n=1) == measure(network=network, n=1) == 1
    assert measure(network=network, n=2) == 2 and measure(network=other, n=1) == 3
    assert len(list((study.request.output / "measurements").glob("test-*.json"))) == 3


def test_logs_of_given_networks_are_needed(study):
    with pytest.raises(InputError, match="run directory whose log.csv has curvature_1"):
        study.log("soar", 0, ("curvature_1",))


def test_networks_that_do_not_fit_the_data_are_refused(models, tmp_path):
    study = Study(Request("section4", "smoke", "digits", None, 1, tmp_path, tmp_path), 3)
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    network.save(tmp_path / "standard-seed0.keras")
    with pytest.raises(InputError, match="takes images of shape"):
        study.network("standard", 0)

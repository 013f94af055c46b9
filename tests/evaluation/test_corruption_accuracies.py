"""Accuracy on corrupted images: what is measured, kept and merged."""

import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf import corruptions
from soar_tf.errors import InputError
from soar_tf.evaluation import corruption_accuracies, merge

NAMES = ("contrast", "gaussian-noise", "brightness")


def dark_or_bright(x):
    """Logits of two classes: whether the mean pixel is above one half."""
    margin = tf.reduce_mean(tf.reshape(x, [tf.shape(x)[0], -1]), axis=1) - 0.5
    return tf.stack([-margin, margin], axis=1)


@pytest.fixture(scope="module")
def data():
    levels = np.linspace(0.2, 0.8, 13) + 0.001
    levels = np.delete(levels, 6)
    pattern = np.random.default_rng(0).uniform(-0.1, 0.1, (12, 8, 8, 1)).repeat(3, axis=3)
    pattern -= pattern.mean(axis=(1, 2, 3), keepdims=True)
    x = (levels[:, None, None, None] + pattern).astype("float32")
    return x, (levels > 0.5).astype("int64")


def test_the_accuracies_of_a_network_that_looks_at_brightness(data):
    x, y = data
    found = corruption_accuracies(dark_or_bright, x, y, NAMES)
    assert found.clean_accuracy == 1 and found.n == 12 and tuple(found.accuracy) == NAMES
    # Contrast about the mean keeps the mean. Brightness adds .05, .1, .15, .2 and .3 to these grey
    # pixels, and so takes the 6 dark images at .2, .25, ..., .45 over the threshold one by one.
    assert found.accuracy["contrast"] == (1,) * 5
    lost = np.array([1, 2, 3, 4, 6])
    np.testing.assert_allclose(found.accuracy["brightness"], 1 - lost / 12)
    assert found.mean == pytest.approx(np.mean(list(found.accuracy.values())))
    assert found.by_severity == pytest.approx(np.mean(list(found.accuracy.values()), axis=0))
    assert found.to_dict()["accuracy"]["brightness"] == list(found.accuracy["brightness"])


def test_batches_and_shards_do_not_matter(data):
    whole = corruption_accuracies(dark_or_bright, *data, NAMES, seed=3)
    assert corruption_accuracies(dark_or_bright, *data, NAMES, seed=3, batch_size=5) == whole
    shards = [
        corruption_accuracies(dark_or_bright, *data, NAMES, seed=3, shard=f"{k}/3")
        for k in (2, 3, 1)
    ]
    assert merge(shards) == whole
    other = corruption_accuracies(dark_or_bright, *data, NAMES[:2], seed=3, shard="1/3")
    with pytest.raises(InputError, match="corruptions differs"):
        merge([*shards[:2], other])


def test_finished_corruptions_are_kept(data, tmp_path):
    calls = []
    first = corruption_accuracies(
        dark_or_bright, *data, NAMES[:2], state=tmp_path / "s", progress=calls.append, batch_size=6
    )
    assert [call.name for call in calls[:10]] == ["corruptions 1/2 contrast"] * 10
    assert [call.done for call in calls[:10]] == list(range(6, 61, 6)) and calls[0].total == 60
    calls.clear()
    more = corruption_accuracies(
        dark_or_bright, *data, NAMES, state=tmp_path / "s", progress=calls.append, batch_size=6
    )
    assert {call.name for call in calls} == {"corruptions 3/3 brightness"}
    assert {name: more.accuracy[name] for name in NAMES[:2]} == first.accuracy
    with pytest.raises(InputError, match="seed differs"):
        corruption_accuracies(dark_or_bright, *data, NAMES, state=tmp_path / "s", seed=1)


def test_the_default_is_every_corruption_that_fits(data):
    x, y = data
    assert tuple(corruption_accuracies(dark_or_bright, x, y).accuracy) == tuple(
        corruptions.ALL_OBJECTS
    )
    assert "saturate" not in corruption_accuracies(dark_or_bright, x[..., :1], y).accuracy


def test_bad_arguments_are_refused(data):
    x, y = data
    with pytest.raises(InputError, match="Unknown corruption 'snow'"):
        corruption_accuracies(dark_or_bright, x, y, ["snow"])
    with pytest.raises(InputError, match="at least one corruption"):
        corruption_accuracies(dark_or_bright, x, y, [])
    with pytest.raises(InputError, match="saturate needs images of 3 channels"):
        corruption_accuracies(dark_or_bright, x[..., :1], y, ["saturate"])
    with pytest.raises(InputError, match="`corruptions` need images of shape"):
        corruption_accuracies(lambda x: x, x.reshape(12, -1), y)


def test_the_package_is_public():
    assert soar_tf.corruptions.SEVERITIES == (1, 2, 3, 4, 5)

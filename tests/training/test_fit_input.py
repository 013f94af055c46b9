"""Data for `fit` that Keras would end on in a graph's error: one message each."""

import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.errors import InputError


@pytest.fixture
def model(smooth_network):
    model = soar_tf.RobustModel(smooth_network, "standard")
    model.compile("sgd")
    return model


def batches(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(6)


def test_labels_that_come_late_are_refused(model, images):
    x, y = images
    late = np.concatenate([y[:6], y[6:] + 7])
    with pytest.raises(InputError, match="labels from 0 to 2.*Received a label of [789]"):
        model.fit(batches(x, late), verbose=0)
    with pytest.raises(InputError, match="labels from 0 to 2.*Received a label of [789]"):
        model.fit(((x, y + 7) for _ in range(2)), verbose=0)
    with pytest.raises(InputError, match="labels from 0 to 2.*Received a label of -1"):
        model.fit(((x, y - 1) for _ in range(2)), verbose=0)


def test_single_images_are_no_batches(model, images):
    with pytest.raises(InputError, match="must be a tf.data.Dataset of batches; call .batch"):
        model.fit(tf.data.Dataset.from_tensor_slices(images), verbose=0)


@pytest.mark.parametrize("pair", [tuple, lambda two: dict(zip("ab", two, strict=True))])
def test_several_inputs_are_refused(pair, model, images):
    x, y = images
    with pytest.raises(InputError, match="one tensor of images. Received a "):
        model.fit(batches(pair((x, x)), y), verbose=0)


def test_one_input_in_a_list_is_taken(model, images):
    x, y = images
    assert np.isfinite(model.fit([x], y, verbose=0).history["loss"]).all()
    assert np.isfinite(model.fit(batches((x,), y), verbose=0).history["loss"]).all()


def test_several_inputs_in_a_list_are_refused(model, images):
    x, y = images
    with pytest.raises(InputError, match="one tensor of images. Received a (tuple|list) of 2"):
        model.fit([x, x], y, verbose=0)


def test_a_model_that_is_not_compiled(smooth_network, images):
    with pytest.raises(InputError, match="call compile first"):
        soar_tf.RobustModel(smooth_network, "standard").fit(*images, verbose=0)


def test_a_split_is_no_data_of_keras(model, images, digits):
    with pytest.raises(InputError, match="`x` must be as Keras takes it; .*float_images"):
        model.fit(digits["train"], verbose=0)
    with pytest.raises(InputError, match="`validation_data` must be as Keras takes it"):
        model.fit(*images, validation_data=digits["test"], verbose=0)


def test_a_loss_of_another_form_of_labels(smooth_network, images):
    model = soar_tf.RobustModel(smooth_network, "standard")
    model.compile("sgd", loss="mse")
    with pytest.raises(InputError, match="`loss` cannot be computed of .* labels of shape"):
        model.fit(*images, verbose=0)


def test_validation_data_in_a_dictionary(model, images):
    x, y = images
    history = model.fit(x, y, validation_data=({"any": x}, y), verbose=0).history
    assert np.isfinite(history["val_loss"]).all()


def test_validation_labels_of_other_classes(model, images):
    x, y = images
    with pytest.raises(InputError, match="labels from 0 to 2"):
        model.fit(x, y, validation_data=(x, y + 7), verbose=0)

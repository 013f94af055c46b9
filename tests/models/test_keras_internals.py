"""Keras still has each private attribute that `soar_tf.models.keras_internals` uses, as it is used.

A failure here names what a new version of Keras changed.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from soar_tf.models import keras_internals as internals


@pytest.fixture
def nested():
    block = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="block")
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Activation("relu")(block(inputs)))


def test_layers_at_any_depth(nested):
    dense = nested.get_layer("block").layers[0]
    assert internals.has_layers(nested) and not internals.has_layers(lambda x: x)
    everything = internals.layers_of(nested)
    assert everything[0] is nested and any(layer is dense for layer in everything)
    inside = internals.layers_of(nested, include_self=False, recursive=False)
    assert nested not in inside and not any(layer is dense for layer in inside)


def test_a_dtype_policy_is_replaced_without_touching_the_shared_one():
    policy = keras.DTypePolicy("mixed_bfloat16")
    first, second = (keras.layers.Dense(2, dtype=policy) for _ in range(2))
    internals.set_dtype_policy(first, keras.DTypePolicy("float32"))
    assert internals.dtype_policy(first).name == first.compute_dtype == "float32"
    assert second.compute_dtype == "bfloat16"


def test_a_policy_computes_in_one_dtype_from_variables_of_another():
    policy = internals.ComputePolicy("float64", "float32")
    assert (policy.compute_dtype, policy.variable_dtype) == ("float64", "float32")


def test_dropout_of_recurrent_and_attention_layers():
    recurrent = keras.layers.LSTM(2, dropout=0.1, recurrent_dropout=0.2)
    assert internals.dropout_rates(recurrent) == [0.1, 0.2]
    attention = keras.layers.MultiHeadAttention(1, 2, dropout=0.3)
    assert set(internals.dropout_rates(attention)) == {0.3}
    assert internals.dropout_rates(keras.layers.Dense(2)) == []


def test_the_layer_of_an_output(nested):
    output = nested.outputs[0]
    assert internals.output_layer(output) is nested.layers[-1]
    assert internals.output_layer(tf.zeros(1)) is None
    assert internals.output_layer(internals.input_of_output(output)) is nested.get_layer("block")


def test_the_averages_of_weights():
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.75)
    weight = keras.Variable([8.0])
    optimizer.build([weight])
    for _ in range(2):  # 7, where the average begins, and 6
        optimizer.apply([tf.constant([1.0])], [weight])
    (average,) = internals.weight_averages(optimizer)
    assert float(average[0]) == 0.75 * 7 + 0.25 * 6


def test_which_models_only_call_their_layers(nested):
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    assert isinstance(nested, internals.Functional)
    assert internals.calls_its_layers_only(nested)
    assert internals.calls_its_layers_only(keras.Sequential([keras.layers.Dense(1)]))
    assert not internals.calls_its_layers_only(Own())


def test_where_models_cast_their_inputs(nested):
    """With the attributes replaced, float64 reaches the layers; without them, it is cast."""
    seen = []

    class Seen(keras.layers.Layer):
        def call(self, inputs):
            seen.append(inputs.dtype)
            return inputs

    inputs = keras.Input((4,))
    functional = keras.Model(inputs, Seen(autocast=False)(inputs))
    sequential = keras.Sequential([keras.Input((4,)), Seen(autocast=False)])
    for model in (functional, sequential):
        model.autocast = False
        casts = internals.input_casts(internals.layers_of(model))
        assert casts
        x = tf.zeros((1, 4), tf.float64)
        model(x)
        assert seen.pop() == tf.float32
        for instance, name, value in casts:
            assert hasattr(instance, name)
            vars(instance)[name] = value
        model(x)
        assert seen.pop() == tf.float64


def test_the_loss_that_fit_logs():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    internals.loss_tracker(model).update_state(3.0)
    assert model.get_metrics_result()["loss"] == 3.0


def test_compiled_metrics_have_no_variables_at_first():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert not internals.lacks_metrics(model)
    model.compile("sgd", "mse", metrics=["mae"])
    assert internals.lacks_metrics(model)
    internals.build_metrics(model, (tf.zeros((3, 2)), tf.zeros((3, 1))))
    assert not internals.lacks_metrics(model)


def test_strategies_of_models_and_optimizers():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    assert internals.strategy_of(model) is strategy
    assert internals.optimizer_strategy(model.optimizer) is strategy
    assert internals.strategy_of(keras.Sequential([keras.layers.Dense(1)])) is None
    assert internals.optimizer_strategy(keras.optimizers.SGD()) is tf.distribute.get_strategy()


def test_gradients_are_summed_in_a_method_that_can_be_replaced():
    optimizer = keras.optimizers.SGD()
    assert list(inspect.signature(optimizer._all_reduce_sum_gradients).parameters) == [
        "grads_and_vars"
    ]
    internals.sum_gradients_outside(optimizer)
    pairs = [(1, 2)]
    assert optimizer._all_reduce_sum_gradients(pairs) is pairs


class Recorder(internals.HookedModel):
    def __init__(self, start, record):
        super().__init__()
        self.dense, self.start, self.record = keras.layers.Dense(1), start, record

    def call(self, inputs):
        return self.dense(inputs)

    def before_epochs(self, iterator, data_batch):
        self.record((iterator is not None, data_batch))
        super().before_epochs(iterator, data_batch)
        spec = internals.element_spec(iterator)
        internals.build_metrics(self, spec)
        self.record([tuple(part.shape) for part in tf.nest.flatten(spec)])
        if self.start:
            internals.begin_epoch_at(iterator, self.start)

    def epoch_logs(self, logs):
        self.record(sorted(logs))
        return super().epoch_logs(logs) | {"more": 1.0}


@pytest.mark.parametrize("start", [None, 2])
def test_fit_calls_both_hooks_and_an_epoch_can_begin_later(start):
    calls = []
    model = Recorder(start, calls.append)
    steps = []
    callback = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda n, logs: steps.append(n))
    model.compile("sgd", "mse", metrics=["mae"])
    images = 2 * (4 - (start or 0))  # what is left of four batches
    x, y = np.zeros((images, 2), "float32"), np.zeros((images, 1), "float32")
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(2)
    history = model.fit(data, callbacks=[callback], verbose=0)
    assert calls[0] == (True, None)
    assert calls[1] == [(None, 2), (None, 1)]
    assert calls[2] == ["loss", "mae"] and history.history["more"] == [1.0]
    assert steps == list(range(start or 0, 4))

"""Keras's private attributes: everything that this package uses of them, and why.

No other file names one (`tests/test_architecture.py`). `tests/models/test_keras_internals.py` fails
when Keras drops one or gives it another meaning.
"""

import itertools

import keras
from keras.src.models import Functional  # no public name tells what a model is inside

__all__ = [
    "ComputePolicy",
    "Functional",
    "HookedModel",
    "begin_epoch_at",
    "build_metrics",
    "calls_its_layers_only",
    "dropout_rates",
    "dtype_policy",
    "element_spec",
    "has_layers",
    "input_casts",
    "input_of_output",
    "layers_of",
    "loss_tracker",
    "optimizer_strategy",
    "output_layer",
    "set_dtype_policy",
    "strategy_of",
    "sum_gradients_outside",
    "weight_averages",
]


def has_layers(unit):
    """Whether something is a Keras layer or model, whose layers `layers_of` gives."""
    return hasattr(unit, "_flatten_layers")


def layers_of(unit, *, include_self=True, recursive=True):
    """The layers in a layer or model, at any depth; Keras's public `layers` are those of a model.

    Args:
        unit: A Keras layer or model.
        include_self: Whether it is the first of them.
        recursive: Whether layers inside layers come along.

    Returns:
        A list.
    """
    return list(unit._flatten_layers(include_self=include_self, recursive=recursive))


def dtype_policy(layer):
    """The policy that a layer itself has; the public name gives a policy map's for nested ones."""
    return layer._dtype_policy


def set_dtype_policy(layer, policy):
    """Gives a layer another policy; the public setter edits policy maps that layers share."""
    layer._dtype_policy = policy


class ComputePolicy(keras.DTypePolicy):
    """Computes in one dtype and casts variables of another to it."""

    def __init__(self, compute, variable):
        super().__init__(compute)
        self._variable_dtype = variable


def dropout_rates(layer):
    """The rates of whatever dropout a layer does itself; an empty list if it has no such rate."""
    names = ("dropout", "recurrent_dropout", "_dropout")  # the last is attention's
    return [getattr(layer, name) for name in names if hasattr(layer, name)]


def output_layer(tensor):
    """The layer or operation that a symbolic tensor came out of; `None` for other tensors."""
    history = getattr(tensor, "_keras_history", None)
    return history and history.operation


def input_of_output(tensor):
    """The symbolic tensor that went into the call that another one came out of."""
    operation, node, _ = tensor._keras_history
    return operation._inbound_nodes[node].input_tensors[0]


def weight_averages(optimizer):
    """The moving averages that an optimizer with `use_ema` keeps, one per trainable weight."""
    return optimizer._model_variables_moving_average


def calls_its_layers_only(model):
    """Whether a model does nothing but call its layers."""
    return type(model).call in (Functional.call, keras.Sequential.call)


def input_casts(layers):
    """Where models among `layers` cast their arguments to their `Input`'s dtype.

    Returns:
        Triples `(instance, attribute, value)`: with this value the instance's attribute does not
        cast.
    """
    # A sequential model calls a functional one that is not among its layers.
    inner = [getattr(layer, "_functional", None) or layer for layer in layers]
    functional = [model for model in inner if isinstance(model, Functional)]
    sequential = [layer for layer in layers if isinstance(layer, keras.Sequential)]
    return [
        *((model, "_convert_inputs_to_tensors", list) for model in functional),
        *((model, "_convert_input_args", False) for model in sequential),
    ]


def loss_tracker(model):
    """The metric that `fit` logs as `loss`, which a train step of one's own has to feed."""
    return model._loss_tracker


def strategy_of(model):
    """The strategy in whose scope a model was made, or `None`; the public name gives a default."""
    return model._distribute_strategy


def optimizer_strategy(optimizer):
    """The strategy in whose scope an optimizer was made; TensorFlow's default one without."""
    return optimizer._distribution_strategy


def sum_gradients_outside(optimizer):
    """Lets an optimizer take gradients that are summed over the replicas already.

    Keras sums them after clipping.
    """
    optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables


def lacks_metrics(model):
    """Whether compiled metrics have no variables yet."""
    metrics = model._compile_metrics
    return metrics is not None and not metrics.built


def build_metrics(model, batch):
    """Makes the variables of compiled metrics, from a batch or its structure of shapes."""
    model._symbolic_build(data_batch=batch)


def element_spec(iterator):
    """The structure of an epoch iterator's batches."""
    return iterator._distributed_dataset.element_spec


def begin_epoch_at(iterator, step):
    """Lets an epoch iterator leave out the first steps of its first epoch."""
    whole = iterator._enumerate_iterator

    def rest():
        iterator._enumerate_iterator = whole
        if iterator._num_batches is not None:
            iterator._num_batches += step  # the steps left out are counted, too
        # Keras draws a step's batch after the step's number: what is left out costs no batch.
        return itertools.islice(whole(), step, None)

    iterator._enumerate_iterator = rest


class HookedModel(keras.Model):
    """`keras.Model`, whose `fit` calls two private methods that subclasses may extend."""

    def before_epochs(self, iterator, data_batch):
        """Called before the first epoch of `fit` and `evaluate`, to make the metrics' variables.

        Args:
            iterator: Keras's epoch iterator, or `None`.
            data_batch: A batch, or `None` for the iterator's first.
        """
        super()._maybe_symbolic_build(iterator, data_batch)

    def epoch_logs(self, logs):
        """Called after an epoch with the last step's logs; returns the epoch's."""
        return super()._get_metrics_result_or_logs(logs)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        self.before_epochs(iterator, data_batch)

    def _get_metrics_result_or_logs(self, logs):
        return self.epoch_logs(logs)

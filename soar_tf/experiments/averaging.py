"""Training with averaged weights: where the average stands in for the weights."""

import keras


class SwapAverage(keras.callbacks.Callback):
    """Exchanges weights and their moving averages: around validation, and after each epoch.

    It stands twice in the list of callbacks, around those that judge the network at an epoch's
    end; `around_validation` is set for one of the two. `keras.callbacks.SwapEMAWeights` does the
    same by adding and subtracting, which rounds, so that looking at a network would change how it
    trains. At the end of `fit` Keras itself puts the average in the weights' place.

    BatchNorm's moving statistics stay as they are: averages already, of the last steps' batches
    under the weights that were trained, not under the averaged ones.

    Args:
        around_validation: Whether to swap for `fit`'s validation, too.
    """

    def __init__(self, around_validation=False):
        super().__init__()
        self.around_validation = around_validation

    def on_epoch_end(self, epoch, logs=None):
        self._swap()

    def on_test_begin(self, logs=None):
        if self.around_validation:
            self._swap()

    on_test_end = on_test_begin

    def _swap(self):
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        averages = optimizer._model_variables_moving_average
        for weight, average in zip(self.model.trainable_variables, averages, strict=True):
            kept = keras.ops.convert_to_numpy(weight)
            weight.assign(keras.ops.convert_to_numpy(average))
            average.assign(kept)


def on_average(ema, judging):
    """Callbacks that judge the network, so that they see the averaged weights.

    Args:
        ema: Momentum of the average, or `None`: then the callbacks come back as they are.
        judging: List of callbacks.
    """
    return list(judging) if ema is None else [SwapAverage(True), *judging, SwapAverage()]

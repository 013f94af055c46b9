"""Starting `fit` in the middle of an epoch: at a later step, with the epoch's metrics so far."""

import numpy as np

from soar_tf.errors import RunError
from soar_tf.models import keras_internals
from soar_tf.training import replicas


class ResumableModel(replicas.DistributedModel):
    """A Keras model whose next `fit` can start where an earlier one was stopped in an epoch.

    Keras itself starts epochs from their first step only. Its loop stays as it is: the first
    epoch's numbers of steps leave out those that were done, and the reset of the metrics at the
    epoch's beginning is followed by what they had.
    """

    _next_start = _start = None
    _start_logs = None

    def epoch_metrics(self):
        """What the metrics have of the epoch so far.

        Returns:
            A list with one entry per metric variable: a list with one array per replica of this
            process.
        """
        return [
            [np.asarray(part.numpy()) for part in replicas.local_parts(variable)]
            for variable in self.metrics_variables
        ]

    def start_within_epoch(self, step, metrics, logs):
        """Makes the next `fit` start its first epoch at a later step.

        Args:
            step: Steps of that epoch that are done, at least 1. The data given to `fit` start with
                the next step's batch.
            metrics: What `epoch_metrics` gave after them, of this process.
            logs: The logs of the last of them: the epoch's, if no step is left.
        """
        self._next_start = (step, metrics, logs)

    def fit(self, *args, **kwargs):
        self._start, self._next_start = self._next_start, None
        self._start_logs = None if self._start is None else self._start[2]
        try:
            return super().fit(*args, **kwargs)
        finally:
            self._start = self._start_logs = None

    def before_epochs(self, iterator, data_batch):
        super().before_epochs(iterator, data_batch)
        if self._start is None or iterator is None:
            return
        if self.distribute_strategy.num_replicas_in_sync == 1:
            # Else compiled metrics have no variables before the first step.
            keras_internals.build_metrics(self, keras_internals.element_spec(iterator))
        keras_internals.begin_epoch_at(iterator, self._start[0])

    def reset_metrics(self):
        super().reset_metrics()
        if self._start is not None:  # the reset at the beginning of the first epoch
            _restore(self.metrics_variables, self._start[1])
            self._start = None

    def epoch_logs(self, logs):
        return super().epoch_logs(logs or self._start_logs or logs)


def _restore(variables, metrics):
    if len(variables) != len(metrics):
        raise RunError(
            f"The checkpoint does not fit this run: it has {len(metrics)} metric values, and the "
            f"run has {len(variables)}."
        )
    for variable, values in zip(variables, metrics, strict=True):
        for part, value in zip(replicas.local_parts(variable), values, strict=True):
            if np.shape(value) != tuple(part.shape):
                raise RunError("The checkpoint does not fit this run: its metrics are others.")
            part.assign(np.asarray(value, part.dtype.as_numpy_dtype))

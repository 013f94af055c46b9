"""One phase of a training run: a method, trained for its epochs, with checkpoints."""

import contextlib
import csv
import dataclasses
import io
import sys

import keras
import tensorflow as tf

from soar_tf import datasets, files, methods
from soar_tf.errors import InputError, RunError
from soar_tf.runs import checkpoints, intervals, optimizers, run_directory
from soar_tf.runs.callbacks import CollapseNotice, PhaseProgress, SkippingNotice, on_average
from soar_tf.runs.selection import Selection, validation_callbacks, validation_split
from soar_tf.runs.within_epoch import CheckpointWithinEpoch, metrics_of
from soar_tf.training import RobustModel, strategies
from soar_tf.training.losses import class_accuracy, default_loss


@dataclasses.dataclass(frozen=True)
class Phase:
    """One training phase: a method, and how long and how fast it trains.

    Attributes:
        number: Its place in the run, from 0 on.
        name: What log and messages call it.
        method: The `Method`.
        epochs: Number of epochs.
        learning_rate: Peak learning rate.
        drops: Where the paper's schedule drops, as fractions of the phase.
        last: Whether it is the run's last phase, the one that early stopping and the choice of the
            best epoch are for.
        callbacks: Further Keras callbacks.
    """

    number: int
    name: str
    method: methods.Method
    epochs: int
    learning_rate: float
    drops: tuple
    last: bool
    callbacks: list = dataclasses.field(default_factory=list)

    def model(self, network, config, strategy, total_steps):
        """The compiled `RobustModel`, its optimizer built."""
        rate = optimizers.learning_rate(
            config.lr_schedule,
            self.learning_rate,
            total_steps,
            self.drops,
            drop_steps=config.lr_drop_steps if self.last else None,
            warmup=config.lr_warmup,
        )
        with strategies.scope(strategy):
            model = RobustModel(
                network,
                self.method,
                seed=self.seed(config),
                micro_batch=config.micro_batch,
                # The standard network before a method is the same with and without.
                awp=config.awp if self.last else None,
            )
            model.compile(
                optimizers.optimizer(
                    config.optimizer,
                    rate,
                    config.weight_decay,
                    config.weight_decay_type,
                    config.ema,
                ),
                loss=default_loss(config.label_smoothing),
                # Keras's own takes one form of labels: mixed ones, or those for validation.
                metrics=["accuracy" if config.mixup is None else class_accuracy()],
                jit_compile="auto" if config.jit is None else config.jit,
            )
            model.optimizer.build(model.trainable_variables)
        return model

    def seed(self, config):
        """The phase's seed: phases must not repeat each other's order and noise."""
        return config.seed * 1000 + self.number

    def train(self, folder, network, dataset, config, progress, *, resumed, strategy, verbose):
        """Trains, from the state of the checkpoint `resumed` on if there is one.

        Args:
            folder: The `RunDirectory`.
            network: The network; it holds the result afterwards.
            dataset: The run's `soar_tf.datasets.Dataset`.
            config: The resolved `TrainConfig`.
            progress: The run's progress, see `checkpoints`; extended in place.
            resumed: Path of a checkpoint of this phase, or `None`.
            strategy: The distribution strategy, or `None`.
            verbose: Keras's verbosity.

        Raises:
            DivergedError: If the loss becomes NaN or infinite; `network` is the last good one then,
                if an epoch of this phase was good.
        """
        epoch = 0 if resumed is None else progress["epoch"]
        state = progress.get("selection") if resumed is not None else None
        within, states = progress.pop("within", None), progress.pop("callbacks", None)
        selection = Selection.of(config, state) if self.last else None
        step = within["step"] if within else 0
        pipeline, steps = self._pipeline(dataset, config, epoch, step, strategy)
        model = self.model(network, config, strategy, steps * self.epochs)
        if resumed is not None:
            checkpoints.load(model, resumed)
        if epoch < self.epochs and not (state or {}).get("stopped"):
            if verbose:
                after = f", after step {step} of {steps}" if step else ""
                print(
                    f"Phase {self.name}: epochs {epoch + 1} to {self.epochs}{after}",
                    file=sys.stderr,
                )
            if within:
                metrics = metrics_of(strategy, within["metrics"])
                model.start_within_epoch(step, metrics, within["logs"])
            callbacks, request = self._callbacks(
                folder, dataset, config, progress, selection, strategy, steps, states
            )
            if verbose:
                callbacks.append(PhaseProgress(self.name, epoch))
                callbacks.append(SkippingNotice(self.name))
                callbacks.append(CollapseNotice(self.name, dataset.num_classes))
            try:
                validation = _validation_data(dataset, config, strategy)
                with request, _unreadable_named(dataset):
                    self._fit(model, pipeline, validation, epoch, steps, callbacks, verbose)
            except checkpoints.DivergedError:
                self._load_last_good(folder, model)
                raise
        if self.last and (config.keep_best or (progress.get("selection") or {}).get("fell")):
            best = checkpoints.load_best(folder / run_directory.CHECKPOINTS, model, progress)
            folder.update_manifest(
                best={"epoch": best, config.monitor: progress["selection"]["best"]}
            )
        model.optimizer.finalize_variable_values(model.trainable_variables)

    def _pipeline(self, dataset, config, epoch, step, strategy):
        """The batches after a step of an epoch, and the steps of an epoch."""
        train, steps = training_split(dataset, config), steps_per_epoch(dataset, config)
        if step > steps:
            raise RunError(
                f"The checkpoint does not fit this run: it is of step {step}, and an epoch has "
                f"{steps} steps."
            )
        if step == steps:
            # Only validation is left. Keras wants data all the same.
            epoch, step = (epoch + 1, 0) if epoch + 1 < self.epochs else (epoch, steps - 1)

        def part(part):
            return datasets.training_pipeline(
                train,
                config.batch_size,
                seed=self.seed(config),
                epochs=self.epochs,
                initial_epoch=epoch,
                initial_step=step,
                augment=dataset.augment if config.augment is None else config.augment,
                cutout=config.cutout,
                mixup=config.mixup,
                num_classes=dataset.num_classes,
                part=part,
            )[0]

        return strategies.distributed(strategy, part), steps

    def _callbacks(self, folder, dataset, config, progress, selection, strategy, steps, states):
        """The callbacks, and the context in which a request to stop waits for a checkpoint."""
        judging = [*(validation_callbacks(config, dataset) if self.last else ()), *self.callbacks]
        stateful = [each for each in judging if hasattr(each, "checkpoint_state")]
        if isinstance(states, list) and len(states) == len(stateful):
            for callback, state in zip(stateful, states, strict=True):
                callback.restore_state(state)
        each_epoch = checkpoints.CheckpointEachEpoch(
            folder / run_directory.CHECKPOINTS,
            (self.number, self.name),
            progress,
            lambda rows: write_log(folder / run_directory.LOG, rows),
            selection,
            folder.check_place,
            stateful,
        )
        callbacks = [
            keras.callbacks.TerminateOnNaN(),
            *on_average(config.ema, judging),
            *([selection] if selection else ()),
            each_epoch,
        ]
        if config.checkpoint_every is None:
            return callbacks, contextlib.nullcontext()
        interval = intervals.parse(config.checkpoint_every)
        callbacks.append(CheckpointWithinEpoch(each_epoch, interval, steps, strategy))
        return callbacks, callbacks[-1].request.heeded()

    def _fit(self, model, pipeline, validation, epoch, steps, callbacks, verbose):
        # Keras draws its progress bars on stdout, which belongs to results.
        with contextlib.redirect_stdout(sys.stderr):
            model.fit(
                pipeline,
                validation_data=validation,
                epochs=self.epochs,
                initial_epoch=epoch,
                steps_per_epoch=steps,
                callbacks=callbacks,
                shuffle=False,
                verbose=verbose,
            )

    def _load_last_good(self, folder, model):
        path, progress = checkpoints.newest(folder / run_directory.CHECKPOINTS)
        if path is not None and progress["phase"] == self.number:
            checkpoints.load(model, path)
            model.optimizer.finalize_variable_values(model.trainable_variables)


def training_split(dataset, config):
    """The `Split` that a run trains on."""
    train = dataset["train"]
    return train if config.limit is None else train.take(config.limit)


def steps_per_epoch(dataset, config):
    """Steps of an epoch: whole batches, or one with all images where there are fewer."""
    images = len(training_split(dataset, config))
    return max(1, images // config.batch_size)


def _validation_data(dataset, config, strategy):
    """The validation images in batches, or `None` for a run that keeps none."""
    if "validation" not in dataset.splits:
        return None
    images = validation_split(dataset, config)
    if len(images) < strategies.describe(strategy)["replicas"]:
        return datasets.evaluation_pipeline(images, 256)
    return strategies.distributed(
        strategy, lambda part: datasets.evaluation_pipeline(images, 256, part=part)
    )


# What TensorFlow raises where an image cannot be read.
_UNREADABLE = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.UnknownError,
    tf.errors.DataLossError,
    tf.errors.PermissionDeniedError,
)


@contextlib.contextmanager
def _unreadable_named(dataset):
    """Turns the end of a run by an image that turned unreadable into a message with its name."""
    try:
        yield
    except _UNREADABLE:
        try:
            for split in dataset.splits.values():
                split.check()
        except InputError as error:
            raise RunError(
                f"{error} It was readable when the run began; once it is again, the same command "
                "resumes."
            ) from None
        raise


def write_log(path, rows):
    """Writes the log's rows as CSV, atomically; phases may have different columns."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())

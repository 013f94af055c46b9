"""A training run from a configuration: set up, train each phase, write the results.

Setting up checks everything that can be wrong with the input, before anything is written. Then a
run has one or two phases (a standard network first, for methods that fine-tune one), checkpointed
after every epoch, so that the same call goes on wherever it was stopped.
"""

import contextlib
import csv
import dataclasses
import io
import sys
import time

import keras
import tensorflow as tf

from soar_tf import config as config_room
from soar_tf import datasets, files, methods, networks, saved_model, serialization
from soar_tf.errors import InputError, RunError
from soar_tf.experiments import checkpoints, manifest, models, run_directory, schedules
from soar_tf.experiments.selection import Selection, validation_callbacks
from soar_tf.training import RobustModel
from soar_tf.training.losses import default_loss

# Where the paper divides the learning rate by ten: at epochs 100 and 150 of 200, and 90 and 100
# of 150 (arXiv:2004.01832, appendix C).
_DROPS = {"standard": (100 / 200, 150 / 200), "method": (90 / 150, 100 / 150)}


@dataclasses.dataclass(frozen=True)
class Phase:
    """One training phase: a method, and how long and how fast it trains."""

    number: int
    name: str
    method: methods.Method
    epochs: int
    learning_rate: float
    drops: tuple


class Experiment:
    """A checked training run.

    Args:
        config: A `soar_tf.config.TrainConfig`; unset values get their defaults.

    Attributes:
        config: The configuration with every value resolved.
        dataset: The loaded `soar_tf.datasets.Dataset`.
        network: The network to train.
        phases: The phases.

    Raises:
        InputError: If anything in the configuration cannot be used.
    """

    def __init__(self, config):
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        method = methods.get(config.method, **self._method_arguments(config))
        config = config.resolved(fine_tunes=method.starts_from_standard)
        self.config = dataclasses.replace(config, method_args=_plain(method.get_config()))
        keras.config.set_dtype_policy(config.precision)
        keras.utils.set_random_seed(config.seed)
        self.dataset = datasets.load(
            config.dataset,
            data_dir=config.data_dir,
            image_size=tuple(config.image_size) if config.image_size else None,
        )
        for split in ("train", "validation"):
            self.dataset[split]  # refuses a data set without one
        self.network = self._network()
        self.phases = self._phases(method)
        validation_callbacks(self.config, self.dataset)  # refuses a bad attack before training

    @staticmethod
    def _method_arguments(config):
        """The method's arguments; its epsilon is the data set's unless it is given."""
        arguments = dict(config.method_args)
        takes = serialization.argument_names(methods.find(config.method))
        if "epsilon" in takes and arguments.get("norm", "linf") == "linf":
            arguments.setdefault("epsilon", config_room.recipe(config.dataset)["epsilon"])
        return arguments

    def _network(self):
        config, dataset = self.config, self.dataset
        path = config.init_from or config.network
        if config.init_from is None and not config.network.endswith(".keras"):
            return networks.get(
                config.network,
                input_shape=dataset.image_shape,
                num_classes=dataset.num_classes,
                **config.network_args,
            )
        if config.network_args:
            raise InputError("`network_args` are for registered networks, not for a loaded one.")
        argument = "network" if config.init_from is None else "init_from"
        network = models.load_network(models.network_path(path, argument), argument)
        models.check_fits(network, dataset.image_shape, dataset.num_classes, path)
        return network

    def _phases(self, method):
        config = self.config
        phases = []
        if config.pretrain_epochs:
            standard = methods.get("standard")
            phases.append(
                Phase(0, "standard", standard, config.pretrain_epochs,
                      config.pretrain_learning_rate, _DROPS["standard"])
            )  # fmt: skip
        fine_tuning = bool(config.pretrain_epochs or config.init_from)
        drops = _DROPS["method" if fine_tuning else "standard"]
        phases.append(
            Phase(len(phases), config.method, method, config.epochs, config.learning_rate, drops)
        )
        return phases

    def run(self, workdir, *, verbose=1, allow_mixed_environment=False):
        """Trains, or goes on training, in a folder.

        Args:
            workdir: The run directory's path.
            verbose: Keras's verbosity: 1 for progress bars, 2 for a line an epoch, 0 for silence.
            allow_mixed_environment: Whether to go on with a run that was begun under other
                versions, threads or processor flags, which can change its bits.

        Returns:
            The run directory's path.

        Raises:
            InputError: If the folder cannot be used.
            RunError: If the loss becomes NaN or infinite, or the folder cannot be written.
        """
        with run_directory.RunDirectory(workdir, self.config) as folder:
            if folder.is_complete():
                print(f"{folder.path}: this run is complete already.", file=sys.stderr)
                return folder.path
            path, progress = checkpoints.newest(folder / run_directory.CHECKPOINTS)
            progress = self._progress(progress, workdir, allow_mixed_environment)
            # A clock may be set back in the middle.
            started, previous = time.monotonic(), folder.manifest()
            with files.as_run_error(folder.path):
                self._begin_manifest(folder, previous, progress)
            try:
                self._train(folder, path, progress, verbose)
            finally:
                spent = _number(previous.get("seconds")) + time.monotonic() - started
                with contextlib.suppress(OSError):  # a full disk must not hide why it ended
                    folder.update_manifest(seconds=round(spent, 1))
            with files.as_run_error(folder.path):
                folder.update_manifest(status="complete")
            return folder.path

    def _progress(self, progress, workdir, allow_mixed):
        """The progress to go on from; refuses other data or, unless allowed, environments."""
        fingerprint = self.dataset.fingerprint()
        progress = progress or {"phase": 0, "epoch": 0, "rows": []}
        if (stored := progress.setdefault("dataset", fingerprint)) != fingerprint:
            raise InputError(
                f"`workdir` {workdir} was begun with other images or labels of data set "
                f"{self.dataset.name!r}: their fingerprint is {str(stored)[:16]} there and "
                f"{fingerprint[:16]} here; use another workdir."
            )
        if progress["phase"] >= len(self.phases):
            raise InputError(f"`workdir` {workdir} holds checkpoints of another run.")
        environments = progress.get("environments", [])
        place = progress["phase"], progress["epoch"]
        progress["environments"] = manifest.continued(environments, place, allow_mixed, workdir)
        return progress

    def _begin_manifest(self, folder, previous, progress):
        folder.update_manifest(
            status="running",
            **manifest.environment(),
            seed=self.config.seed,
            dataset={
                "name": self.dataset.name,
                "fingerprint": progress["dataset"],
                "provenance": self.dataset.provenance,
            },
            environments=progress["environments"],
            resumes=int(_number(previous.get("resumes", -1))) + 1,
        )

    def _train(self, folder, path, progress, verbose):
        if progress["rows"]:
            # A crash may have come between a checkpoint and the log.
            with files.as_run_error(folder.path):
                write_log(folder / run_directory.LOG, progress["rows"])
        train = self.dataset["train"]
        if self.config.limit is not None:
            train = train.take(self.config.limit)
        first = progress["phase"]
        for phase in self.phases[first:]:
            resumed = path if phase.number == first else None
            try:
                self._train_phase(folder, phase, train, progress, resumed, verbose)
            except checkpoints.DivergedError as error:
                kept = self._keep_last_good(folder, phase)
                folder.update_manifest(status="failed")
                raise RunError(f"{error}; {kept}. A smaller --learning-rate may help.") from None
            if phase.number + 1 < len(self.phases):
                with files.as_run_error(folder.path):
                    _save_network(self.network, folder / run_directory.STANDARD)
        with files.as_run_error(folder.path):
            _save_network(self.network, folder / run_directory.NETWORK)
            if not (folder / run_directory.SAVED_MODEL).exists():
                saved_model.export(self.network, folder / run_directory.SAVED_MODEL)

    def _train_phase(self, folder, phase, train, progress, resumed, verbose):
        """Trains one phase, from the state of the checkpoint `resumed` on if there is one."""
        config = self.config
        epoch = 0 if resumed is None else progress["epoch"]
        last = phase is self.phases[-1]
        state = progress.get("selection") if resumed is not None else None
        selection = Selection.of(config, state) if last else None
        augment = self.dataset.augment if config.augment is None else config.augment
        pipeline, steps = datasets.training_pipeline(
            train,
            config.batch_size,
            seed=_phase_seed(config.seed, phase),
            epochs=phase.epochs,
            initial_epoch=epoch,
            augment=augment,
        )
        model = RobustModel(
            self.network,
            phase.method,
            seed=_phase_seed(config.seed, phase),
            micro_batch=config.micro_batch,
        )
        rate = schedules.learning_rate(
            config.lr_schedule, phase.learning_rate, steps * phase.epochs, phase.drops
        )
        model.compile(
            schedules.optimizer(config.optimizer, rate, config.weight_decay, config.ema),
            loss=default_loss(config.label_smoothing),
            metrics=["accuracy"],
            jit_compile="auto" if config.jit is None else config.jit,
        )
        model.optimizer.build(model.trainable_variables)
        self._model = model
        if resumed is not None:
            checkpoints.load(model, resumed)
        if epoch < phase.epochs and not (state or {}).get("stopped"):
            if verbose:
                print(f"Phase {phase.name}: epochs {epoch + 1} to {phase.epochs}", file=sys.stderr)
            callbacks = [
                keras.callbacks.TerminateOnNaN(),
                *(validation_callbacks(config, self.dataset) if last else ()),
                *([selection] if selection else ()),
                checkpoints.CheckpointEachEpoch(
                    folder / run_directory.CHECKPOINTS,
                    (phase.number, phase.name),
                    progress,
                    lambda rows: write_log(folder / run_directory.LOG, rows),
                    selection,
                ),
            ]
            # Keras draws its progress bars on stdout, which belongs to results.
            with contextlib.redirect_stdout(sys.stderr):
                model.fit(
                    pipeline,
                    validation_data=datasets.evaluation_pipeline(self.dataset["validation"], 256),
                    epochs=phase.epochs,
                    initial_epoch=epoch,
                    steps_per_epoch=steps,
                    callbacks=callbacks,
                    shuffle=False,
                    verbose=verbose,
                )
        if config.keep_best and last:
            best = checkpoints.load_best(folder / run_directory.CHECKPOINTS, model, progress)
            folder.update_manifest(
                best={"epoch": best, config.monitor: progress["selection"]["best"]}
            )

    def _keep_last_good(self, folder, phase):
        """After a run that failed, writes the phase's last good network; returns what is kept."""
        path, progress = checkpoints.newest(folder / run_directory.CHECKPOINTS)
        if path is None:
            return "no epoch before it was good, so no weights are kept"
        if progress["phase"] != phase.number:
            return f"the phase before it is kept in {run_directory.STANDARD}"
        self._model.load_weights(path)
        self._model.optimizer.finalize_variable_values(self._model.trainable_variables)
        _save_network(self.network, folder / run_directory.NETWORK)
        return f"the network of epoch {progress['epoch']} is kept in {run_directory.NETWORK}"


def write_log(path, rows):
    """Writes the log's rows as CSV, atomically; phases may have different columns."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


def _number(value):
    return value if isinstance(value, (int, float)) else 0


def _phase_seed(seed, phase):
    # Phases must not repeat each other's order and noise.
    return seed * 1000 + phase.number


def _save_network(network, path):
    with files.replacing(path) as temporary:
        network.save(temporary)


def _plain(config):
    """A method's config without `None`, which TOML cannot hold: spelled as a string instead."""
    return {k: "none" if v is None else v for k, v in config.items()}

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

from soar_tf import config as config_room
from soar_tf import datasets, files, methods, networks, saved_model, serialization
from soar_tf.errors import InputError, RunError
from soar_tf.experiments import checkpoints, manifest, models, run_directory, schedules
from soar_tf.experiments.progress import PhaseProgress
from soar_tf.training import RobustModel

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
        self.network = self._network()
        self.phases = self._phases(method)

    @staticmethod
    def _method_arguments(config):
        """The method's arguments; its epsilon is the data set's unless it is given."""
        cls = methods.ALL_OBJECTS.get(config.method)
        arguments = dict(config.method_args)
        takes = serialization.argument_names(cls) if cls is not None else []
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
        network = models.load_network(models.network_path(path))
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

    def run(self, workdir, *, verbose=1):
        """Trains, or goes on training, in a folder.

        Args:
            workdir: The run directory's path.
            verbose: Keras's verbosity: 1 for progress bars, 2 for a line an epoch, 0 for silence.

        Returns:
            The run directory's path.

        Raises:
            InputError: If the folder cannot be used.
            RunError: If the loss becomes NaN or infinite.
        """
        with run_directory.RunDirectory(workdir, self.config) as folder:
            if folder.manifest().get("status") == "complete":
                print(f"{folder.path}: this run is complete already.", file=sys.stderr)
                return folder.path
            started = time.time()
            previous = folder.manifest()
            folder.update_manifest(
                status="running",
                **manifest.environment(),
                seed=self.config.seed,
                dataset={
                    "name": self.dataset.name,
                    "fingerprint": self.dataset.fingerprint(),
                    "provenance": self.dataset.provenance,
                },
                resumes=previous.get("resumes", -1) + 1,
            )
            try:
                self._train(folder, verbose)
            finally:
                spent = previous.get("seconds", 0) + time.time() - started
                folder.update_manifest(seconds=round(spent, 1))
            folder.update_manifest(status="complete")
            return folder.path

    def _train(self, folder, verbose):
        path, progress = checkpoints.newest(folder / run_directory.CHECKPOINTS)
        progress = progress or {"phase": 0, "epoch": 0, "rows": []}
        train = self.dataset["train"]
        if self.config.limit is not None:
            train = train.take(self.config.limit)
        for phase in self.phases[progress["phase"] :]:
            resumed = path if phase.number == progress["phase"] else None
            epoch = progress["epoch"] if phase.number == progress["phase"] else 0
            try:
                self._train_phase(folder, phase, train, epoch, progress["rows"], resumed, verbose)
            except RunError as error:
                kept = self._keep_last_good(folder, phase)
                folder.update_manifest(status="failed")
                raise RunError(f"{error}; {kept}. A smaller --learning-rate may help.") from None
            if phase.number + 1 < len(self.phases):
                _save_network(self.network, folder / run_directory.STANDARD)
        _save_network(self.network, folder / run_directory.NETWORK)
        if not (folder / run_directory.SAVED_MODEL).exists():
            saved_model.export(self.network, folder / run_directory.SAVED_MODEL)

    def _train_phase(self, folder, phase, train, epoch, rows, resumed, verbose):
        """Trains one phase from `epoch` on, with the state of the checkpoint `resumed`."""
        config = self.config
        augment = self.dataset.augment if config.augment is None else config.augment
        pipeline, steps = datasets.training_pipeline(
            train,
            config.batch_size,
            seed=_phase_seed(config.seed, phase),
            epochs=phase.epochs,
            initial_epoch=epoch,
            augment=augment,
        )
        model = RobustModel(self.network, phase.method, seed=_phase_seed(config.seed, phase))
        rate = schedules.learning_rate(
            config.lr_schedule, phase.learning_rate, steps * phase.epochs, phase.drops
        )
        model.compile(
            schedules.optimizer(config.optimizer, rate, config.weight_decay),
            metrics=["accuracy"],
            jit_compile="auto" if config.jit is None else config.jit,
        )
        model.optimizer.build(model.trainable_variables)
        if resumed is not None:
            model.load_weights(resumed)
        if epoch >= phase.epochs:
            return
        if verbose:
            print(f"Phase {phase.name}: epochs {epoch + 1} to {phase.epochs}", file=sys.stderr)
        callbacks = [
            keras.callbacks.TerminateOnNaN(),
            checkpoints.CheckpointEachEpoch(
                folder / run_directory.CHECKPOINTS,
                (phase.number, phase.name),
                rows,
                lambda rows: write_log(folder / run_directory.LOG, rows),
            ),
        ]
        if verbose:
            callbacks.append(PhaseProgress(phase.name, epoch))
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

    def _keep_last_good(self, folder, phase):
        """After a run that failed, writes the phase's last good network; returns what is kept."""
        path, progress = checkpoints.newest(folder / run_directory.CHECKPOINTS)
        if path is None:
            return "no epoch before it was good, so no weights are kept"
        if progress["phase"] != phase.number:
            return f"the phase before it is kept in {run_directory.STANDARD}"
        model = RobustModel(self.network, phase.method)
        model.load_weights(path)
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


def _phase_seed(seed, phase):
    # Phases must not repeat each other's order and noise.
    return seed * 1000 + phase.number


def _save_network(network, path):
    with files.replacing(path) as temporary:
        network.save(temporary)


def _plain(config):
    """A method's config without `None`, which TOML cannot hold: spelled as a string instead."""
    return {k: "none" if v is None else v for k, v in config.items()}

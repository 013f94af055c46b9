"""A training run from a configuration: set up, train each phase, write the results.

Setting up checks everything that can be wrong with the input, before anything is written. Then a
run has one or two phases (a standard network first, for methods that fine-tune one), checkpointed
after every epoch and, if asked, within epochs, so that the same call resumes wherever it was
stopped.
"""

import contextlib
import dataclasses
import sys
import time

import keras
import tensorflow as tf

from soar_tf import datasets, files, methods, registry
from soar_tf.datasets import augmentation
from soar_tf.errors import InputError, RunError
from soar_tf.models import networks, saved_model
from soar_tf.models.precision import saved_in_float32, set_precision
from soar_tf.runs import checkpoints, models, provenance, resuming, run_directory, workers
from soar_tf.runs.phases import Phase, steps_per_epoch, write_log
from soar_tf.runs.selection import validation_callbacks
from soar_tf.training import strategies
from soar_tf.training.weight_perturbation import WeightPerturbation

# Where the paper divides the learning rate by ten: at epochs 100 and 150 of 200, and 90 and 100
# of 150 (arXiv:2004.01832, appendix C).
_DROPS = {"standard": (100 / 200, 150 / 200), "method": (90 / 150, 100 / 150)}


# Larger than the seconds and resumptions of any run.
_MOST = 1e12


class Experiment:
    """A checked training run.

    Args:
        config: A `soar_tf.runs.config.TrainConfig`; unset values get their defaults.
        strategy: A strategy of `soar_tf.training.strategies.make`, or `None` for one device.

    Attributes:
        config: The configuration with every value resolved.
        dataset: The loaded `soar_tf.datasets.Dataset`.
        network: The network to train.
        phases: The phases.
        callbacks: Further Keras callbacks of the method's phase, a list to extend before `run`;
            what they log stands in the run's log.

    Raises:
        InputError: If anything in the configuration cannot be used.
    """

    def __init__(self, config, strategy=None):
        self.strategy, self.callbacks = strategy, []
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        method = methods.get(config.method, **self._method_arguments(config))
        config = config.resolved(
            fine_tunes=method.starts_from_standard,
            second_order=method.second_order,
            usual=method.train_settings,
        )
        self.config = dataclasses.replace(
            config,
            method_args=run_directory.plain(method),
            awp=WeightPerturbation(config.awp).setting,
        )
        keras.config.set_dtype_policy(config.precision)
        keras.utils.set_random_seed(config.seed)
        self.dataset = datasets.load(
            config.dataset,
            data_dir=config.data_dir,
            image_size=tuple(config.image_size) if config.image_size else None,
            validation_images=config.validation_images,
            resize_crop=config.resize_crop,
            channels=config.channels,
            orientation=config.orientation,
        )
        for split in ("train", "validation")[: 1 if config.validation_images == 0 else 2]:
            self.dataset[split]  # refuses a data set without one
        augmentation.check_cutout(config.cutout, self.dataset.image_shape[:2])
        workers.check_settings(strategy, self.config, len(self.dataset["train"]))
        if config.mixup is not None:
            method.check_mixed_labels("`mixup` must be None", self.config.mixup)
        self.config.check_lengths(steps_per_epoch(self.dataset, self.config))
        method.check_batches(config.micro_batch, strategies.describe(strategy)["replicas"])
        with strategies.scope(strategy):
            self.network = self._network()
            set_precision(self.network, config.precision)
        self.phases = self._phases(method)
        validation_callbacks(self.config, self.dataset)  # refuses a bad attack before training

    @staticmethod
    def _method_arguments(config):
        """The method's arguments; its epsilon is the data set's unless it is given."""
        arguments, method = dict(config.method_args), methods.find(config.method)
        takes = registry.argument_names(method)
        if "epsilon" in takes and "epsilon" not in arguments:
            norm = arguments.get("norm", "linf")
            warms_up = not method.starts_from_standard
            arguments["epsilon"] = config.default_epsilon(norm, warms_up=warms_up)
        return arguments

    def _network(self):
        config, dataset = self.config, self.dataset
        path = config.init_from or config.network
        if config.init_from is None and not config.network.endswith(".keras"):
            if config.pixel_range is not None:
                raise InputError("`pixel_range` is for a network loaded from a .keras file.")
            return networks.get(
                config.network,
                input_shape=dataset.image_shape,
                num_classes=dataset.num_classes,
                **config.network_args,
            )
        if config.network_args:
            raise InputError("`network_args` are for registered networks, not for a loaded one.")
        argument = "network" if config.init_from is None else "init_from"
        network = models.load_network(
            models.network_path(path, argument), argument, pixel_range=config.pixel_range
        )
        models.check_fits(network, dataset.image_shape, dataset.num_classes, path)
        return network

    def _phases(self, method):
        config = self.config
        phases = []
        if config.pretrain_epochs:
            standard = methods.get("standard")
            phases.append(
                Phase(
                    0,
                    "standard",
                    standard,
                    config.pretrain_epochs,
                    config.pretrain_learning_rate,
                    _DROPS["standard"],
                    last=False,
                )
            )
        fine_tuning = bool(config.pretrain_epochs or config.init_from)
        drops = _DROPS["method" if fine_tuning else "standard"]
        if config.lr_drops is not None:
            drops = tuple(epoch / config.epochs for epoch in config.lr_drops)
        phases.append(
            Phase(
                len(phases),
                config.method,
                method,
                config.epochs,
                config.learning_rate,
                drops,
                last=True,
                callbacks=self.callbacks,
            )
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
            The run directory's path; `None` in a process that is not the chief of several hosts.

        Raises:
            InputError: If the folder cannot be used.
            RunError: If the loss becomes NaN or infinite, or the folder cannot be written.
        """
        fingerprint = self.dataset.fingerprint()
        with workers.open_run(self.strategy, workdir, self.config, fingerprint) as folder:
            if verbose and strategies.rank(self.strategy) == 0:
                models.say_what_was_read(self.dataset)
            if folder.is_complete():
                stored = folder.manifest().get("dataset")
                resuming.check_data(self.dataset, stored, fingerprint, workdir)
                print(f"{folder.path}: this run is complete already.", file=sys.stderr)
                return self._result(folder)
            path, progress = checkpoints.newest(folder / run_directory.CHECKPOINTS)
            # The chief answers for the run; the others only have to compute the same.
            allow_mixed = allow_mixed_environment or strategies.rank(self.strategy) != 0
            progress = self._progress(progress, fingerprint, workdir, allow_mixed)
            # A clock may be set back in the middle.
            started, previous = time.monotonic(), folder.manifest()
            workers.say_what_changed(self.strategy, previous)
            with files.as_run_error(folder.path):
                self._begin_manifest(folder, previous, progress)
            try:
                with strategies.workers_may_stop():
                    self._train(folder, path, progress, verbose)
            finally:
                spent = _number(previous.get("seconds")) + time.monotonic() - started
                with contextlib.suppress(OSError):  # a full disk must not hide why it ended
                    folder.update_manifest(seconds=round(spent, 1))
            with files.as_run_error(folder.path):
                folder.update_manifest(status="complete")
            return self._result(folder)

    def _result(self, folder):
        return folder.path if strategies.rank(self.strategy) == 0 else None

    def _progress(self, progress, fingerprint, workdir, allow_mixed):
        """The progress to go on from; refuses other data or, unless allowed, environments."""
        sample = resuming.sample(self.dataset, self.config.limit, progress, workdir)
        progress = progress or {"phase": 0, "epoch": 0, "rows": []}
        progress["sample"] = sample
        stored = {"fingerprint": progress.setdefault("dataset", fingerprint)}
        resuming.check_data(self.dataset, stored, fingerprint, workdir)
        if progress["phase"] >= len(self.phases):
            raise InputError(f"`workdir` {workdir} holds checkpoints of another run.")
        environments = progress.get("environments", [])
        place = {name: progress[name] for name in ("phase", "epoch")}
        if within := progress.get("within"):
            place["step"] = within["step"]
        progress["environments"] = provenance.continued(environments, place, allow_mixed, workdir)
        return progress

    def _begin_manifest(self, folder, previous, progress):
        folder.update_manifest(
            status="running",
            **provenance.environment(),
            seed=self.config.seed,
            dataset={
                "name": self.dataset.name,
                "fingerprint": progress["dataset"],
                "provenance": self.dataset.provenance,
                "sample": progress["sample"],
            },
            distribution=strategies.describe(self.strategy),
            environments=progress["environments"],
            resumes=round(_number(previous.get("resumes", -1))) + 1,
        )

    def _train(self, folder, path, progress, verbose):
        if progress["rows"]:
            # A crash may have come between a checkpoint and the log.
            with files.as_run_error(folder.path):
                write_log(folder / run_directory.LOG, progress["rows"])
        first = progress["phase"]
        for phase in self.phases[first:]:
            resumed = path if phase.number == first else None
            try:
                phase.train(
                    folder,
                    self.network,
                    self.dataset,
                    self.config,
                    progress,
                    resumed=resumed,
                    strategy=self.strategy,
                    verbose=verbose,
                )
            except checkpoints.DivergedError as error:
                kept = self._keep_last_good(folder, phase)
                folder.update_manifest(status="failed")
                raise RunError(f"{error}; {kept}. A smaller --learning-rate may help.") from None
            if phase.number + 1 < len(self.phases):
                with files.as_run_error(folder.path):
                    _save_network(self.network, folder / run_directory.STANDARD)
        folder.check_place()
        with files.as_run_error(folder.path):
            _save_network(self.network, folder / run_directory.NETWORK)
            if not (folder / run_directory.SAVED_MODEL).exists():
                with saved_in_float32(self.network):
                    saved_model.export(self.network, folder / run_directory.SAVED_MODEL)

    def _keep_last_good(self, folder, phase):
        """After a run that failed, writes the phase's last good network; returns what is kept."""
        path, progress = checkpoints.newest(folder / run_directory.CHECKPOINTS)
        if path is None:
            return "no epoch before it was good, so no weights are kept"
        if progress["phase"] != phase.number:
            return f"the phase before it is kept in {run_directory.STANDARD}"
        _save_network(self.network, folder / run_directory.NETWORK)
        place = f"epoch {progress['epoch']}"
        if within := progress.get("within"):
            place = f"step {within['step']} in epoch {progress['epoch'] + 1}"
        return f"the network of {place} is kept in {run_directory.NETWORK}"


def _number(value):
    """A number from a manifest, which anybody may have written; 0 for what is none."""
    return value if type(value) in (int, float) and abs(value) < _MOST else 0


def _save_network(network, path):
    with files.replacing(path) as temporary, saved_in_float32(network):
        network.save(temporary)

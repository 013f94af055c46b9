"""The resources of an entry: data, networks (loaded or trained) and cached measurements."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import soar_tf
from soar_tf import callbacks, datasets, files
from soar_tf.attacks import get as get_attack
from soar_tf.datasets import defaults
from soar_tf.errors import InputError
from soar_tf.paper import recipes
from soar_tf.runs import models, run_directory
from soar_tf.runs.experiment import Experiment

# Number of validation images that the monitor "robustness" attacks after each epoch.
ROBUSTNESS_IMAGES = {"smoke": 32, "short": 512, "paper": 512}


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of `soar_tf.paper.reproduce.reproduce`, which documents them."""

    name: str
    budget: str
    dataset: str | None
    data_dir: str | None
    seeds: int
    output: Path
    models: Path | None = None
    verbose: int = 2
    progress: Callable | None = None
    precision: str = "float32"
    checkpoint_every: int | str | None = None


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that an entry measures.

    Attributes:
        name: One of `recipes.RECIPES`.
        seed: The seed, without the network's offset.
        path: Its run directory or file.
        model: `soar_tf.runs.models.LoadedModel`.
        digest: sha256 of its weight file or files.
        given: Whether it is from `--models`.
    """

    name: str
    seed: int
    path: Path
    model: object
    digest: str
    given: bool

    @property
    def keras_model(self):
        """The Keras model, which a SavedModel does not have."""
        if self.model.network is None:
            raise InputError(
                f"`models` must contain {self.name} as a run directory or a .keras file, since its "
                f"derivatives are needed. Received: the SavedModel {self.path}."
            )
        return self.model.network


class Study:
    """Provides data, networks and measurements, and caches them, so that a second run resumes.

    Networks are loaded from `--models`, as NAME-seedK (a run directory or a SavedModel) or
    NAME-seedK.keras, or else trained in OUTPUT/networks, as by `soar-tf train`. Measurements are
    cached in OUTPUT/measurements under everything that they depend on.

    Args:
        request: The `Request`.
        networks: Number of networks that the entry needs, over all seeds, for messages.
    """

    def __init__(self, request, networks):
        self.request, self.networks = request, networks
        self.limits = recipes.LIMITS[request.budget]
        self.seeds = range(request.seeds)
        self._datasets, self._networks = {}, {}

    @property
    def epsilon(self):
        """The data set's l-infinity radius, 8/255 on CIFAR-10 and without a data set."""
        return defaults.recipe(self.request.dataset)["epsilon"]

    def dataset(self, size=None):
        """The data set, with images of the original size or shrunk to `[height, width]`."""
        key = None if size is None else tuple(size)
        if key not in self._datasets:
            self._datasets[key] = datasets.load(
                self.request.dataset, data_dir=self.request.data_dir, image_size=key
            )
        return self._datasets[key]

    def dataset_of(self, name):
        """The data set with images of the size that a network takes."""
        return self.dataset(recipes.image_size(name, self.dataset().image_shape))

    def given_path(self, name, seed):
        """The path of a network in `--models`, or `None`."""
        if self.request.models is None:
            return None
        stem = self.request.models / f"{name}-seed{seed}"
        return next((path for path in (stem, Path(f"{stem}.keras")) if path.exists()), None)

    def network(self, name, seed):
        """A network, loaded from `--models` or trained."""
        if (name, seed) not in self._networks:
            given = self.given_path(name, seed)
            path = given or self._train(name, seed)
            model = models.load(path)
            data = self.dataset_of(name)
            models.check_fits(model, data.image_shape, data.num_classes, path)
            network = Network(name, seed, path, model, _digest(path), given is not None)
            self._networks[name, seed] = network
        return self._networks[name, seed]

    def _train(self, name, seed):
        request, start = self.request, recipes.RECIPES[name].starts_from
        folder = files.make_subfolder(request.output, "networks")
        folder = files.make_subfolder(folder, f"{request.dataset}-{request.budget}")
        config = recipes.config(
            name,
            seed,
            budget=request.budget,
            dataset=request.dataset,
            data_dir=request.data_dir,
            init_from=None if start is None else self.network(start, seed).path,
            size=recipes.image_size(name, self.dataset().image_shape),
            precision=request.precision,
            checkpoint_every=request.checkpoint_every,
        )
        number = len(self._networks) + 1
        print(f"Network {name}, seed {seed} ({number} of {self.networks})", file=sys.stderr)
        experiment = Experiment(config)
        experiment.callbacks += monitors(name, experiment.dataset, self.epsilon, request.budget)
        return experiment.run(folder / f"{name}-seed{seed}", verbose=request.verbose)

    def progress(self, name, seed):
        """A callback for a measurement's `Progress` that adds the network's name, or `None`."""
        if self.request.progress is None:
            return None
        network = f"{recipes.RECIPES[name].label}, seed {seed}"
        return lambda progress: self.request.progress(
            progress._replace(name=f"{network}: {progress.name}")
        )

    def measured(self, what, settings, compute):
        """A measurement, read from the cache or computed and cached.

        Args:
            what: What is measured, for the file name.
            settings: Everything that the result depends on, JSON-serializable; a `Network` is
                identified by its weights.
            compute: Callable without arguments that returns a JSON-serializable value.

        Returns:
            The value.
        """
        settings = {
            key: value.digest if isinstance(value, Network) else value
            for key, value in {"version": soar_tf.__version__, **settings}.items()
        }
        text = json.dumps([what, settings], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        path = self.request.output / "measurements" / f"{what}-{key}.json"
        with contextlib.suppress(InputError, KeyError):  # a damaged file is measured again
            if (stored := files.read_json(path)) is not None:
                return stored["value"]
        value = compute()
        files.make_subfolder(self.request.output, "measurements")
        files.write_json(path, {"settings": settings, "value": value})
        return value

    def log(self, name, seed, columns):
        """The training log of a network, `{column: [float per epoch]}`.

        Args:
            name, seed: The network.
            columns: Names of the columns.

        Raises:
            InputError: If a network from `--models` has no log with these columns.
        """
        path = self.network(name, seed).path
        try:
            text = files.read_bytes(path / run_directory.LOG).decode("utf-8")
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        except (OSError, UnicodeDecodeError):
            rows = []
        if not rows or not all(rows[-1].get(column) for column in columns):
            raise InputError(
                f"`models` must contain {name} as a run directory whose {run_directory.LOG} has "
                f"{' and '.join(columns)}. Received: {path}."
            )
        rows = [row for row in rows if row[columns[0]]]
        return {column: [float(row[column]) for row in rows] for column in columns}

    def networks_used(self):
        """The networks of this study, for the manifest."""
        return [
            {
                "name": network.name,
                "seed": network.seed,
                "given": network.given,
                "path": str(network.path),
                "sha256": network.digest,
                "config": network.model.config,
            }
            for network in self._networks.values()
        ]


def monitors(name, dataset, epsilon, budget):
    """The callbacks that write what figures 2 and 3 need into the run's log after each epoch.

    Args:
        name: The network's name.
        dataset: The run's data set.
        epsilon: l-infinity radius.
        budget: `"smoke"`, `"short"` or `"paper"`.

    Returns:
        List of Keras callbacks, empty for most networks.
    """
    images, directions = (16, 5) if budget == "smoke" else (128, 100)
    result = []
    if "penalty" in recipes.RECIPES[name].monitors:
        result.append(
            callbacks.CurvatureMonitor(dataset["train"], epsilon, directions, limit=images)
        )
    if "robustness" in recipes.RECIPES[name].monitors:
        attack = get_attack("pgd20", epsilon=epsilon)
        limit = ROBUSTNESS_IMAGES[budget]
        result.append(
            callbacks.RobustAccuracy(dataset["validation"], attack, limit=limit, name="pgd20")
        )
    return result


def _digest(path):
    """sha256 of a model's weights: of its file, or of all files of a SavedModel."""
    path = Path(path)
    if path.is_dir() and run_directory.is_run(path):
        path = path / run_directory.NETWORK
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        with files.open_regular(file) as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def check_models(path):
    """Rejects a `--models` that is not a folder, or that contains no network."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"`models` must be a folder. Received: {path}.")
    names = [f"{name}-seed" for name in recipes.RECIPES]
    for entry in path.iterdir():
        if entry.name.startswith(tuple(names)):
            return
    raise InputError(
        f"`models` {path} contains no network; they are named NAME-seedK or NAME-seedK.keras, such "
        "as standard-seed0."
    )


def float64_network(network):
    """A copy of a Keras network that computes in float64, for accurate derivatives.

    Args:
        network: A functional `keras.Model`.

    Returns:
        A `keras.Model` with the same weights and float64 inputs.
    """
    import keras

    def wide(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

    inputs = keras.Input(network.input_shape[1:], dtype="float64")
    copy = keras.models.clone_model(network, input_tensors=inputs, clone_function=wide)
    copy.set_weights(network.get_weights())
    return copy

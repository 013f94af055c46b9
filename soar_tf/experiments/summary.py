"""Attacks on finished runs: the table after training, and `soar-tf evaluate`'s report."""

import os
from pathlib import Path

from soar_tf import attacks as attacks_room
from soar_tf import config as config_room
from soar_tf import evaluation, files
from soar_tf.errors import InputError
from soar_tf.experiments import masking as masking_section
from soar_tf.experiments import models, run_directory
from soar_tf.experiments.manifest import environment

UPPER_BOUND = "Robust accuracy is an upper bound: stronger attacks may lower it{}."


def note(attacks):
    """The sentence under every table of robust accuracies."""
    strong = any(name.partition(":")[0] == "autoattack" for name in attacks)
    return UPPER_BOUND.format("" if strong else ", such as --attack autoattack, which was not run")


def attack_run(folder, dataset, *, limit, attacks=("fgsm", "pgd20"), progress=None):
    """Attacks a run's networks, the standard one and the trained one, on images not trained on.

    These are test images, or validation images if the data set has no test split.

    Args:
        folder: A finished run directory.
        dataset: The run's `soar_tf.datasets.Dataset`.
        limit: Number of images.
        attacks: Names of the attacks.
        progress: See `soar_tf.evaluate`.

    Returns:
        A JSON-serializable dictionary with `columns`, `rows`, `n`, `split`, `epsilon`, `dataset`
        and `note`.
    """
    model = models.load(folder)
    epsilon = config_room.recipe(model.config["dataset"])["epsilon"]
    epsilon = model.config.get("method_args", {}).get("epsilon", epsilon)
    built = [attacks_room.get(name, epsilon=epsilon) for name in attacks]
    split = "test" if "test" in dataset.splits else "validation"
    examples = dataset[split].take(limit)
    rows = []
    candidates = {"standard": folder / run_directory.STANDARD}
    candidates[model.config["method"]] = folder / run_directory.NETWORK
    for phase, path in candidates.items():
        if not path.is_file():
            continue
        network = models.load_network(path)
        result = evaluation.evaluate(
            network, examples.float_images(), examples.labels, built, progress=progress
        )
        row = {"phase": phase, "clean": result.clean_accuracy}
        row |= {n: a.robust_accuracy for n, a in zip(attacks, result.attacks, strict=True)}
        rows.append(row)
    return {
        "columns": ["clean", *attacks],
        "rows": rows,
        "n": len(examples),
        "split": split,
        "epsilon": epsilon,
        "dataset": dataset.name,
        "note": note(attacks),
    }


def evaluate_model(
    path,
    *,
    dataset,
    attacks,
    data_dir=None,
    image_size=None,
    split="test",
    limit=None,
    epsilon=None,
    batch_size=256,
    seed=0,
    output=None,
    masking=False,
    masking_source=None,
    trust=False,
    progress=None,
):
    """Attacks a model and, if asked to, writes the report.

    Args:
        path: A run directory, a `.keras` file or a SavedModel folder.
        dataset: Data set's name; `None` takes a run directory's own.
        attacks: Attacks as strings.
        data_dir: Folder of tensorflow-datasets; `None` takes a run directory's own.
        image_size: `[height, width]`, or `None`.
        split: Split to attack.
        limit: Number of images, or `None` for all.
        epsilon: Radius of linf attacks that set none; `None` takes the data set's usual one.
        batch_size: Images attacked together.
        seed: Seed of the attacks' noise.
        output: Path of the JSON report, or `None`.
        masking: Whether to run the checks for gradient masking, too.
        masking_source: A model for their transfer check, or `None`.
        trust: Whether SavedModels may hold any operation.
        progress: See `soar_tf.evaluate`.

    Returns:
        The report, a JSON-serializable dictionary.

    Raises:
        InputError: If the model, the data, an attack or `output` cannot be used.
    """
    if epsilon is None and dataset is not None:
        epsilon = config_room.recipe(dataset)["epsilon"]
    for name in attacks:
        attacks_room.get(name, epsilon=8 / 255 if epsilon is None else epsilon)
    _check_output(output)
    model = models.load(path, trust=trust)
    dataset = dataset or model.config.get("dataset")
    if dataset is None:
        raise InputError("`dataset` is needed: only a run directory knows its own.")
    epsilon = config_room.recipe(dataset)["epsilon"] if epsilon is None else epsilon
    built = [attacks_room.get(name, epsilon=epsilon) for name in attacks]
    examples = models.examples_for(
        {path: model},
        dataset,
        data_dir=data_dir,
        image_size=image_size,
        split=split,
        limit=limit,
    )
    source = masking_section.load_source(masking_source, model, trust=trust) if masking else None
    result = evaluation.evaluate(
        model.network or model.logits_fn,
        examples.float_images(),
        examples.labels,
        built,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    report = {"model": str(path), "dataset": dataset, "split": split, **result.to_dict()}
    for entry, name, attack in zip(report["attacks"], attacks, built, strict=True):
        entry["name"], entry["config"] = name, attack.get_config()
    report |= {"note": note(attacks), "environment": environment()}
    if masking:
        masking_section.add(report, model, source, examples, epsilon, batch_size, progress)
    if output is not None:
        files.write_json(output, report)
    return report


def _check_output(output):
    """Refuses a report's place before hours of attacks, not after."""
    if output is None:
        return
    parent = Path(output).absolute().parent
    if not parent.is_dir():
        raise InputError(f"`output` {output}: the folder {Path(output).parent} does not exist.")
    if Path(output).is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"`output` {output} cannot be written.")

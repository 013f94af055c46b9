"""Attacks on finished runs: the table after training."""

from soar_tf import evaluation, methods
from soar_tf.attacks import get as get_attack
from soar_tf.datasets import defaults
from soar_tf.errors import InputError
from soar_tf.runs import models, run_directory

UPPER_BOUND = "Robust accuracy is an upper bound: stronger attacks may lower it{}."


def note(attacks):
    """The sentence under every table of robust accuracies."""
    strong = any(name.partition(":")[0] == "autoattack" for name in attacks)
    return UPPER_BOUND.format("" if strong else ", such as --attack autoattack, which was not run")


def judged_split(dataset):
    """The split that a run's result is judged on: test, or validation where there is none.

    Raises:
        InputError: If the data set has neither.
    """
    found = [split for split in ("test", "validation") if split in dataset.splits]
    if not found:
        raise InputError(
            f"`evaluate` needs test or validation images, and data set {dataset.name!r} has none "
            "here; pass --evaluate 0 to train without."
        )
    return found[0]


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
    epsilon = defaults.recipe(model.config["dataset"])["epsilon"]
    epsilon = methods.last_value(model.config.get("method_args", {}).get("epsilon", epsilon))
    built = [get_attack(name, epsilon=epsilon) for name in attacks]
    split = judged_split(dataset)
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

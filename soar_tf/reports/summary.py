"""Attacks on finished runs: the table after training."""

from soar_tf import evaluation
from soar_tf.attacks import get as get_attack
from soar_tf.errors import InputError
from soar_tf.runs import models, run_directory
from soar_tf.threat_model import ThreatModel

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


def check_attacks(attacks, norm=None, epsilon=None):
    """Refuses attacks that cannot be built, before anything is loaded.

    Args:
        attacks: Attacks as strings.
        norm: Norm of those that set none, or `None`.
        epsilon: Radius of those that set none, or `None`.

    Returns:
        `norm` and `epsilon` as far as they are given, as arguments of `soar_tf.attacks.get`.

    Raises:
        InputError: For an unknown attack, norm or argument, or a radius that the norm cannot have.
    """
    given = {}
    if norm is not None:
        given["norm"] = norm
    if epsilon is not None:
        given["epsilon"] = ThreatModel(norm or "linf", epsilon).epsilon
    for name in attacks:
        get_attack(name, **given)
    return given


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
        A JSON-serializable dictionary with `columns`, `rows`, `n`, `split`, `norm`, `epsilon`,
        `threats` (the threat model of each attack as text), `dataset` and `note`.
    """
    model = models.load(folder)
    threat = models.threat_model([model], model.config["dataset"])
    built = [get_attack(name, norm=threat.norm, epsilon=threat.epsilon) for name in attacks]
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
            network, examples.pixels(), examples.labels, built, progress=progress
        )
        row = {"phase": phase, "clean": result.clean_accuracy}
        row |= {n: a.robust_accuracy for n, a in zip(attacks, result.attacks, strict=True)}
        rows.append(row)
    return {
        "columns": ["clean", *attacks],
        "rows": rows,
        "n": len(examples),
        "split": split,
        "norm": threat.norm,
        "epsilon": threat.epsilon,
        "threats": {
            name: str(attack.threat_model or "-")
            for name, attack in zip(attacks, built, strict=True)
        },
        "dataset": dataset.name,
        "note": note(attacks),
    }

"""Attacks on finished runs: the table after training."""

from soar_tf import evaluation
from soar_tf.attacks import get as get_attack
from soar_tf.errors import InputError
from soar_tf.formatting import threat_text
from soar_tf.runs import models, run_directory
from soar_tf.threat_model import ThreatModel

UPPER_BOUND = "Robust accuracy is an upper bound: stronger attacks may lower it{}."


FEW_IMAGES = 500
"""Below this number of images, a report warns that its interval is wide."""


def note(attacks, n=None, interval=None):
    """The message under every table of robust accuracies.

    Args:
        attacks: The attacks' names.
        n: Number of images, or `None` to say nothing about it.
        interval: The worst case's 95 % interval, `(low, high)`.
    """
    strong = any(name.partition(":")[0] == "autoattack" for name in attacks)
    said = UPPER_BOUND.format("" if strong else ", such as --attack autoattack, which was not run")
    if n is not None and (warning := few_images(n, interval)):
        said += f" {warning}"
    return said


def few_images(n, interval):
    """The warning below any accuracy that rests on fewer than 500 images, or an empty text.

    Args:
        n: Number of images.
        interval: The accuracy's 95 % interval, `(low, high)`.
    """
    if n >= FEW_IMAGES:
        return ""
    low, high = interval
    return (
        f"{n} images leave a wide interval, {100 * (high - low):.0f} points: to compare networks, "
        "use 1,000 images and soar-tf compare."
    )


def verdict(result):
    """What a report says of its headline before any masking check: `note` and `reliability`.

    Args:
        result: The `soar_tf.evaluation.Evaluation`.
    """
    sentences = [finding.message for finding in result.findings]
    sentences.append(note([attack.name for attack in result.attacks], result.n, result.interval))
    reliability = "unreliable" if result.hides_gradients else "not checked"
    return {"note": " ".join(sentences), "reliability": reliability}


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
        attacks: Names of the attacks. The adaptive attack is added where the probe finds gradients
            that mislead these.
        progress: See `soar_tf.evaluate`.

    Returns:
        A JSON-serializable dictionary with `columns`, `rows` (`None` for an attack that a network
        was not given), `n`, `split`, `norm`, `epsilon`, `threats` (the threat model of each attack
        as text), `dataset` and `note`.
    """
    model = models.load(folder)
    threat = models.threat_model([model], model.config["dataset"])
    built = {name: get_attack(name, norm=threat.norm, epsilon=threat.epsilon) for name in attacks}
    split = judged_split(dataset)
    examples = dataset[split].take(limit)
    rows, notes, intervals = [], [], [(0.0, 0.0)]
    threats = {name: str(attack.threat_model or "-") for name, attack in built.items()}
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
        row |= {attack.name: attack.robust_accuracy for attack in result.attacks}
        rows.append(row)
        intervals.append(result.interval)
        added = [attack for attack in result.attacks if attack.name not in built]
        threats |= {attack.name: threat_text(attack.norm, attack.epsilon) for attack in added}
        notes += [f"{phase}: {finding.message}" for finding in result.findings]
    widest = max(intervals, key=lambda interval: interval[1] - interval[0])
    columns = ["clean", *threats]
    return {
        "columns": columns,
        "rows": [{"phase": row["phase"]} | {c: row.get(c) for c in columns} for row in rows],
        "n": len(examples),
        "split": split,
        "norm": threat.norm,
        "epsilon": threat.epsilon,
        "threats": threats,
        "dataset": dataset.name,
        "note": "\n".join([note(attacks, len(examples), widest), *notes]),
    }

"""A report in the form of RobustBench's model entries (arXiv:2010.09670), to be filled in."""

from soar_tf import files
from soar_tf.errors import InputError
from soar_tf.formatting import radius_text

NAME = "robustbench.json"


def check_attacks(attacks):
    """Refuses an evaluation without exactly one AutoAttack, which an entry is about.

    Args:
        attacks: The attacks as strings.

    Raises:
        InputError: If there is none, or several.
    """
    found = [name for name in attacks if name.partition(":")[0] == "autoattack"]
    if len(found) != 1:
        raise InputError(
            "The robustbench form needs --attack autoattack once. "
            f"Received: {', '.join(attacks) or 'none'}."
        )


def entry(report):
    """The entry.

    Accuracies are percentages with two decimals, as text. What a report cannot know, the paper and
    its authors, is left empty; `additional_data` is `null`.

    Args:
        report: The report, see `soar_tf.reports.evaluation.evaluate_model`.

    Returns:
        A JSON-serializable dictionary.

    Raises:
        InputError: If it does not hold exactly one AutoAttack.

    Example:

    >>> from soar_tf.reports import robustbench
    >>> report = {
    ...     "model": "m.keras", "dataset": "cifar10", "architecture": "cnn4", "n": 200,
    ...     "split": "test", "clean_accuracy": 0.7, "worst_case_accuracy": 0.3, "note": "",
    ...     "reliability": "not checked", "attacks": [{"name": "autoattack", "norm": "linf",
    ...     "epsilon": 8 / 255, "robust_accuracy": 0.305}]}
    >>> found = robustbench.entry(report)
    >>> found["eps"], found["autoattack_acc"], found["reported"]
    ('8/255', '30.50', '30.00')
    """
    check_attacks([attack["name"] for attack in report["attacks"]])
    (attack,) = (a for a in report["attacks"] if a["name"].partition(":")[0] == "autoattack")
    unreliable = report["reliability"] == "unreliable"
    notes = [f"{attack['norm'].capitalize()}, {report['n']} images of the {report['split']} split."]
    if unreliable or "shipped" in report:
        notes.append(report["note"])
    return {
        "link": "",
        "name": str(report["model"]),
        "authors": "",
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": report["dataset"],
        "venue": "Unpublished",
        "architecture": report["architecture"] or "",
        "eps": radius_text(attack["epsilon"]),
        "clean_acc": _points(report["clean_accuracy"]),
        "reported": _points(report["worst_case_accuracy"]),
        "autoattack_acc": _points(attack["robust_accuracy"]),
        "footnote": " ".join(notes),
        "unreliable": unreliable,
    }


def write(report, output):
    """Writes the entry: as `robustbench.json` into a folder, or over a `.json` report.

    Args:
        report: The report.
        output: A `pathlib.Path`: where the report was written.
    """
    files.write_json(output if output.suffix == ".json" else output / NAME, entry(report))


def _points(share):
    return f"{100 * share:.2f}"

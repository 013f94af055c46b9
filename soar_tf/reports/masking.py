"""The masking section of `soar-tf evaluate --masking`'s report."""

import math

from soar_tf import evaluation
from soar_tf.errors import InputError
from soar_tf.evaluation.intervals import wilson
from soar_tf.evaluation.state import fingerprint
from soar_tf.runs import models

UNRELIABLE = "The figures are unreliable: they fail the masking checks {}."


def load_source(path, model, argument="masking_source", *, trust=False):
    """Loads the model to transfer from, before any attack.

    Args:
        path: A run directory, a `.keras` file, a SavedModel folder or `zoo:NAME`; or `None`.
        model: The `LoadedModel` to evaluate.
        argument: The argument's name, for the errors.
        trust: Whether a SavedModel may hold any operation.

    Returns:
        A `LoadedModel`, or `None`.

    Raises:
        InputError: If it cannot be read, or has other images or classes than `model`.
    """
    if path is None:
        return None
    source = models.load(path, trust=trust)
    if (source.input_shape, source.num_classes) != (model.input_shape, model.num_classes):
        raise InputError(
            f"`{argument}` {path} must take images of shape {model.input_shape} and give "
            f"{model.num_classes} classes, as {model.name}. Received {source.input_shape} and "
            f"{source.num_classes}."
        )
    return source


def checks(model, source, examples, threat, seed, batch_size, progress, state):
    """Runs the checks, or takes them from the state.

    Args:
        model: The `LoadedModel`.
        source: The `LoadedModel` for the transfer check, or `None`.
        examples: The data set's split.
        threat: The `soar_tf.threat_model.ThreatModel` of the attacks.
        seed, batch_size, progress: See `soar_tf.evaluation.masking_report`.
        state: The evaluation's `State`, which keeps the finished checks.

    Returns:
        The `soar_tf.evaluation.MaskingReport` as a dictionary.
    """
    belongs = {"epsilon": threat.epsilon, "source": source and [source.name, _weights(source)]}
    if threat.norm != "linf":  # state files of version 0.1 knew no other
        belongs["norm"] = threat.norm
    stored = state.sections.get("masking")
    if not isinstance(stored, dict) or stored.get("belongs") != belongs:
        report = evaluation.masking_report(
            model.network or model.logits_fn,
            examples.pixels(),
            examples.labels,
            epsilon=threat.epsilon,
            norm=threat.norm,
            seed=seed,
            source=source and (source.network or source.logits_fn),
            batch_size=batch_size,
            progress=progress,
        )
        stored = {"belongs": belongs, "report": report.to_dict()}
        state.set_section("masking", stored)
    elif not _possible(stored.get("report"), len(examples)):
        raise InputError(
            f"`state` {state.path} is damaged: its masking checks are none of {len(examples)} "
            "images; remove it to start anew."
        )
    return stored["report"]


def failed(report):
    """The names of the checks that fail.

    Args:
        report: What `checks` gives.
    """
    return [check["name"] for check in report["checks"] if check["verdict"] == "fail"]


def add(report, result, found):
    """Adds the checks to a report; failing ones make its note say "unreliable".

    What a check breaks within the radius counts as broken in the report's worst case.

    Args:
        report: `evaluate_model`'s report, changed in place.
        result: Its `soar_tf.evaluation.Evaluation`.
        found: What `checks` gives.
    """
    report["masking"] = dict(found)
    _count_broken(report, result, found.get("broken", ()))
    if report["reliability"] == "not checked":
        report["reliability"] = "no masking check failed"
    if names := failed(found):
        report["reliability"] = "unreliable"
        report["note"] = f"{UNRELIABLE.format(', '.join(names))} {report['note']}"


_VERDICTS = ("pass", "warn", "fail")  # from the best to the worst


def _possible(found, n):
    """Whether a stored report is one that `MaskingReport.to_dict` can give for `n` images."""
    try:
        checks = found["checks"]
        verdicts = [_VERDICTS.index(check["verdict"]) for check in checks]
        texts = [check[name] for check in checks for name in ("name", "sentence")]
        shares = [check["figure"] for check in checks]
        positions = list(found.get("broken", ()))
        if "indicators" in found:
            entries = found["indicators"]["indicators"]
            texts += [entry[name] for entry in entries for name in ("name", "sentence")]
            positions += [position for entry in entries for position in entry["images"]]
        return (
            found["n"] == n
            and found["verdict"] == _VERDICTS[max(verdicts)]
            and all(isinstance(text, str) for text in texts)
            and all(type(share) in (int, float) and not math.isinf(share) for share in shares)
            and all(type(position) is int and 0 <= position < n for position in positions)
        )
    except (KeyError, TypeError, ValueError):
        return False


def _count_broken(report, result, broken):
    robust = result.examples.broken_by == ""
    rows = [row for row in broken if robust[row]]
    if not rows:
        return
    left = (robust.sum() - len(rows)) / len(robust)
    report["worst_case_accuracy"] = float(left)
    report["worst_case_interval"] = list(wilson(int(robust.sum()) - len(rows), len(robust)))
    report["masking"]["broken_besides"] = len(rows)
    report["note"] = (
        f"The worst case counts {len(rows)} images that only the masking checks broke. "
        f"{report['note']}"
    )


def _weights(source):
    return fingerprint(*source.network.get_weights()) if source.network else None

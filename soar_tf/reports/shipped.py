"""`soar-tf evaluate m.tflite`: the attacks on a file without gradients, and its report's section.

The accuracy is what a random search on the file itself and its source's gradients leave; the source
is the network that the file was made of. What the masking checks ask about gradients cannot be
asked here, so the section says what can be said without them.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from soar_tf import evaluation
from soar_tf.attacks import Transferred
from soar_tf.attacks import get as get_attack
from soar_tf.attacks.attack import random_start
from soar_tf.errors import InputError
from soar_tf.evaluation import robustness
from soar_tf.evaluation.state import State, fingerprint
from soar_tf.evaluation.transfer import BLACK_BOX_MARGIN
from soar_tf.formatting import percent
from soar_tf.ops import random
from soar_tf.runs import models, run_directory

RELIABILITY = "no gradients"
NOTE = (
    "No gradients exist in this file, so gradient masking cannot be checked: the accuracy is what "
    "Square on the file and the gradients of {} left."
)
_AGREEMENT_WARN, _LEAD_WARN = 0.9, 0.02


def load_source(path, model, source, *, trust=False):
    """Loads the network that lends its gradients.

    Args:
        path: The file to evaluate.
        model: It, as a `LoadedModel`.
        source: A run directory, a `.keras` file, a SavedModel folder or `zoo:NAME`; `None` takes
            the run directory that the file is in, or that is beside it under the same name.
        trust: Whether a SavedModel may hold any operation.

    Returns:
        A `LoadedModel`.

    Raises:
        InputError: If there is none, or it has other images or classes, or no gradients either.
    """
    if source is None:
        beside = [Path(path).absolute().parent, Path(path).with_suffix("")]
        source = next((place for place in beside if run_directory.is_run(place)), None)
    if source is None:
        raise InputError(
            f"`source` is needed: {path} has no gradients, and no run directory is beside it; give "
            "the model that it was exported from."
        )
    loaded = models.load(source, trust=trust)
    if loaded.artefact is not None:
        raise InputError(f"`source` must have gradients. Received: {source}.")
    shapes = (loaded.input_shape, loaded.num_classes), (model.input_shape, model.num_classes)
    if shapes[0] != shapes[1]:
        raise InputError(
            f"`source` {source} must take images of shape {model.input_shape} and give "
            f"{model.num_classes} classes, as {path}. Received {loaded.input_shape} and "
            f"{loaded.num_classes}."
        )
    return loaded


def attacks(named, source, threat):
    """The attacks as they are run on the file.

    Args:
        named: Mapping of names to `Attack`s.
        source: The `LoadedModel` that lends its gradients.
        threat: The `soar_tf.threat_model.ThreatModel`.

    Returns:
        The mapping, each white-box attack `Transferred`; Square is added if no attack queries the
        file itself.
    """
    network = source.network or source.logits_fn
    name = f"{source.name} {_weights(source)}"
    found = {
        key: Transferred(attack, network, name) if attack.needs_gradients else attack
        for key, attack in named.items()
    }
    stages = [part for attack in named.values() for _, part in attack.stages()]
    if all(part.needs_gradients for part in stages):
        found["square"] = get_attack("square", norm=threat.norm, epsilon=threat.epsilon)
    return found


def add(report, model, source, named, result, examples, threat, place_state, **options):
    """Adds the section to a report: the source's accuracies, and what can be said.

    Args:
        report: `evaluate_model`'s report, changed in place.
        model: The file's `LoadedModel`.
        source: The source's `LoadedModel`.
        named: The attacks as they were asked for, by name, with the added Square.
        result: The file's `soar_tf.evaluation.Evaluation`.
        examples: The data set's split.
        threat: The `soar_tf.threat_model.ThreatModel`.
        place_state: Path of the file's state, or `None`.
        **options: `seed`, `batch_size` and `progress`, see `soar_tf.evaluate`.
    """
    network = source.network or source.logits_fn
    x, y = examples.pixels(), examples.labels
    state = place_state and place_state.with_name(f"source-{place_state.name}")
    parent = evaluation.evaluate(network, x, y, named, state=State(state), **options)
    predict = robustness.batched(model.logits_fn, x.shape[1:], options["batch_size"])
    same = result.examples.clean_prediction == parent.examples.clean_prediction
    naive = _naive_accuracy(predict, x, y, threat, options["seed"], options["batch_size"])
    report["shipped"] = {
        **model.artefact.to_dict(),
        "source": source.name,
        "source_weights": _weights(source),
        "same_top_class": float(same.mean()),
        "source_clean_accuracy": parent.clean_accuracy,
        "source_accuracy": {entry.name: entry.robust_accuracy for entry in parent.attacks},
        "source_worst_case_accuracy": parent.worst_case_accuracy,
        "source_worst_case_interval": list(parent.interval),
        "naive_accuracy": naive,
    }
    report["shipped"]["checks"] = _checks(report["shipped"], result)
    report["reliability"] = RELIABILITY
    report["note"] = f"{NOTE.format(source.name)} {report['note']}"


def _naive_accuracy(predict, x, y, threat, seed, batch_size):
    """What PGD finds that takes the missing gradients for zeros: its random start."""
    survived = 0
    for start in range(0, len(x), batch_size):
        images, labels = x[start : start + batch_size], y[start : start + batch_size]
        positions = tf.range(start, start + len(images))
        keys = random.example_keys(seed, positions, purpose="attack")
        point = random_start(keys, tf.constant(images), threat.epsilon, threat.norm, threat.bounds)
        withstood = robustness.correct(predict(point.numpy()), labels)
        survived += int((withstood & robustness.correct(predict(images), labels)).sum())
    return survived / len(x)


def _checks(shipped, result):
    """What can be said without gradients, as the masking section's checks."""
    same = shipped["same_top_class"]
    lead = result.worst_case_accuracy - shipped["source_worst_case_accuracy"]
    gap = shipped["naive_accuracy"] - result.worst_case_accuracy
    alone = _broken_by_search_alone(result)
    return [
        _check(
            "agreement",
            same,
            same < _AGREEMENT_WARN,
            "Share of the images for which file and source have the same top class; the lower it "
            "is, the less the source's gradients say about the file.",
        ),
        _check(
            "random search",
            alone,
            alone > BLACK_BOX_MARGIN,
            "Share of the images that Square on the file broke and the source's gradients did not: "
            "what they missed.",
        ),
        _check(
            "lead over the source",
            lead,
            lead > _LEAD_WARN,
            "The file's worst case minus its source's. What is above 0 is rounding in the way of "
            "the attacks rather than robustness: count on the source's "
            f"{percent(shipped['source_worst_case_accuracy'])} then.",
        ),
        _check(
            "missing gradients",
            gap,
            False,
            f"An attack that takes the missing gradients for zeros reports "
            f"{percent(shipped['naive_accuracy'])}: too much by this share of the images.",
        ),
    ]


def _check(name, figure, warn, sentence):
    verdict = "warn" if warn else "pass"
    return {"name": name, "verdict": verdict, "figure": float(figure), "sentence": sentence}


def _broken_by_search_alone(result):
    """Share of the examples that Square broke, and no attack with the source's gradients."""
    by_gradients, by_search = np.zeros(result.n, bool), np.zeros(result.n, bool)
    for entry in result.attacks:
        broken = result.clean & ~entry.robust
        name = entry.name.partition(":")[0]
        found_by_search = np.full(result.n, name == "square")
        if name == "autoattack":  # its last stage is Square
            found_by_search = np.char.endswith(result.examples.broken_by, "/square")
        by_search |= broken & found_by_search
        by_gradients |= broken & ~found_by_search
    return float((by_search & ~by_gradients).mean())


def _weights(source):
    return fingerprint(*source.network.get_weights()) if source.network else None

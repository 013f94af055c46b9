"""Shards of an evaluation, put together: what a single process would have found."""

import json

import numpy as np

from soar_tf.errors import InputError
from soar_tf.evaluation import class_order, robustness
from soar_tf.evaluation.corruptions import CorruptionAccuracies
from soar_tf.evaluation.curve import AccuracyCurve, curve_from_distances
from soar_tf.evaluation.distances import MinimumNorms
from soar_tf.evaluation.kept import Chosen
from soar_tf.evaluation.results import MISCLASSIFIED, AttackResult, Evaluation, Examples

ADAPTIVE = "adaptive attack"
"""What a shard's `belongs` calls the adaptive attack that followed its other attacks."""

# Findings that depend on the images that were attacked, and not on the network alone.
_OF_IMAGES = (*robustness.ONE_SIDED, "class_order")


def merge(shards, names=None):
    """Puts the shards of one evaluation together.

    Noise is keyed by an image's position in the whole set, rows are copied, and shares are counted
    anew, so merging rounds nothing: the result is that of a single process bit for bit, except for
    `seconds` (the sum over all shards) and `images_per_second`. That presupposes a network whose
    outputs for an image do not depend on its batch. Kernels that choose their order of summation
    by the batch's size, as most do, round differently in other batches; then the difference is the
    one that another `batch_size` makes. With `batch_size=1` there is none.

    Args:
        shards: All shards in any order: `Evaluation`s, or `AccuracyCurve`s, or `MinimumNorms`, or
            `CorruptionAccuracies`.
        names: What each is called in errors. Default: as its shard, `"3/8"`.

    Returns:
        One object of the same class, for all images.

    Raises:
        InputError: If a shard is missing, is given twice or belongs to another evaluation, or if
            something is no shard.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(20)
    >>> network = soar_tf.networks.mlp()
    >>> shards = [
    ...     soar_tf.evaluate(
    ...         network, digits.float_images(), digits.labels, ["fgsm"], shard=shard)
    ...     for shard in ("1/2", "2/2")]
    >>> soar_tf.evaluation.merge(shards).n
    20
    """
    shards = list(shards)
    order = _order(shards, names)
    kind = type(shards[0])
    if kind is AccuracyCurve:
        return _curve(shards, order)
    if kind is MinimumNorms:
        return _distances(shards, order)
    if kind is CorruptionAccuracies:
        return _corruptions(shards)
    return _evaluation(shards, order)


def _order(shards, names):
    """Where each image of the whole set is in the joined shards; refuses what is no whole set."""
    kinds = (Evaluation, AccuracyCurve, MinimumNorms, CorruptionAccuracies)
    if not shards or any(not isinstance(shard, kinds) for shard in shards):
        raise InputError("`shards` must hold results of evaluations, at least one.")
    unnamed = [f"shard {number}" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names or unnamed, shards, strict=True):
        if shard.shard is None:
            raise InputError(f"`shards`: {name} is no shard of an evaluation, but of all images.")
    names = names or [f"shard {result.shard}" for result in shards]
    first, owners = shards[0], {}
    for name, result in zip(names, shards, strict=True):
        _check_same(names[0], first, name, result)
        if result.shard.index in owners:
            raise InputError(
                f"`shards` must hold each shard once. Received {result.shard} twice: "
                f"{owners[result.shard.index]} and {name}."
            )
        owners[result.shard.index] = name
    count = first.shard.count
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in owners]
    if missing:
        raise InputError(f"`shards` must hold all shards. Missing: {', '.join(missing)}.")
    positions = [result.shard.positions() for result in shards]
    for name, own, result in zip(names, positions, shards, strict=True):
        if len(own) != result.n:
            raise InputError(f"{name} must hold {len(own)} images. Received: {result.n}.")
    return np.argsort(np.concatenate(positions))


def _check_same(first_name, first, name, result):
    """Refuses a shard of another evaluation than the first one's."""

    def about(found):
        attack = {}
        if isinstance(found, CorruptionAccuracies):
            attack = {"corruptions": list(found.accuracy)}
        elif not isinstance(found, Evaluation):
            attack = {"attack": found.attack, "norm": found.norm}
        if isinstance(found, AccuracyCurve):
            attack["radii"] = list(found.epsilons)
        kinds = {"kind": type(found).__name__, "number of shards": found.shard.count}
        return kinds | {"number of images": found.shard.total} | attack | found.shard.belongs

    here, there = about(result), about(first)
    for key in {**there, **here}:
        one, two = (json.dumps(found.get(key)) for found in (there, here))
        if one != two and key == ADAPTIVE:
            raise InputError(
                f"{name} and {first_name} must have the same adaptive attack, which follows by "
                "itself where the probe finds that gradients may be hidden; evaluate all shards "
                "again with adaptive=True (--adaptive). "
                f"Received: {one[1:120]} and {two[1:120]}."
            )
        if one != two:
            raise InputError(
                f"{name} belongs to another evaluation than {first_name}: {key} differs "
                f"({one[:120]} there, {two[:120]} here)."
            )


def _evaluation(shards, order):
    n, attacks = len(order), []
    for same in zip(*(result.attacks for result in shards), strict=True):
        attacks.append(_attack(same, shards, order))
    clean = _joined([result.clean for result in shards], order)
    worst = np.logical_and.reduce([clean, *(attack.robust for attack in attacks)])
    columns = {
        name: _joined([getattr(result.examples, name) for result in shards], order)
        for name in Examples.__dataclass_fields__
        if name != "index"
    }
    examples = Examples(**columns)
    rounded = _share([result.uint8_worst_case_accuracy for result in shards], shards)
    return Evaluation(
        n,
        float(clean.mean()),
        attacks,
        float(worst.mean()),
        shards[0].seed,
        clean,
        examples,
        _kept(shards, attacks, examples),
        rounded,
        findings=(
            *(found for found in shards[0].findings if found.name not in _OF_IMAGES),
            *robustness.one_sided(examples.clean_prediction, examples.label),
            *class_order.findings(examples.clean_prediction, examples.label),
        ),
    )


def _attack(same, shards, order):
    """One attack's outcome over all shards."""
    robust = _joined([attack.robust for attack in same], order)
    stages = []
    for stage in zip(*(attack.stages for attack in same), strict=True):
        stages.append(
            {
                "name": stage[0]["name"],
                "robust_accuracy": _share([part["robust_accuracy"] for part in stage], shards),
                "seconds": round(sum(part["seconds"] for part in stage), 3),
            }
        )
    seconds = round(sum(attack.seconds for attack in same), 3)
    return AttackResult(
        name=same[0].name,
        norm=same[0].norm,
        epsilon=same[0].epsilon,
        robust_accuracy=float(robust.mean()),
        seconds=seconds,
        images_per_second=round(len(order) / seconds, 2) if seconds else 0.0,
        robust=robust,
        stages=tuple(stages),
        uint8_accuracy=_share([attack.uint8_accuracy for attack in same], shards),
    )


def _kept(shards, attacks, examples):
    """The adversarial images that a single process would have kept: those found first."""
    labels = [MISCLASSIFIED]
    for attack in attacks:
        stages = [f"{attack.name}/{stage['name']}" for stage in attack.stages]
        labels += stages or [attack.name]
    found = [position for result in shards for position in result.kept]
    first = sorted(found, key=lambda row: (labels.index(str(examples.broken_by[row])), row))
    keep = shards[0].shard.belongs["images kept"]
    kept = Chosen(first[:keep], [result.kept for result in shards])
    # Images that are in files stay there.
    return dict(kept) if all(type(result.kept) is dict for result in shards) else kept


def _curve(shards, order):
    broken_at = _joined([curve.broken_at for curve in shards], order)
    first = shards[0]
    accuracy = curve_from_distances(broken_at, first.epsilons)
    return AccuracyCurve(
        len(order), first.seed, first.attack, first.norm, first.epsilons, accuracy, broken_at
    )


def _distances(shards, order):
    distances = _joined([found.distances for found in shards], order)
    first = shards[0]
    return MinimumNorms(len(order), first.seed, first.attack, first.norm, distances)


def _corruptions(shards):
    def shares(name):
        severities = zip(*(found.accuracy[name] for found in shards), strict=True)
        return tuple(_share(same, shards) for same in severities)

    first = shards[0]
    clean = _share([found.clean_accuracy for found in shards], shards)
    accuracy = {name: shares(name) for name in first.accuracy}
    return CorruptionAccuracies(sum(found.n for found in shards), first.seed, clean, accuracy)


def _joined(arrays, order):
    return np.concatenate(arrays)[order]


def _share(shares, shards):
    """The share over all images; `None` where nobody asked for it."""
    if shares[0] is None:
        return None
    counts = [round(share * result.n) for share, result in zip(shares, shards, strict=True)]
    return sum(counts) / sum(result.n for result in shards)

"""The curve of `soar-tf evaluate --curve`: an attack at several radii, and all distances."""

import numpy as np

from soar_tf import evaluation
from soar_tf.attacks import get as get_attack
from soar_tf.errors import InputError
from soar_tf.evaluation.curve import curve_from_distances, curve_radii
from soar_tf.evaluation.distances import check_minimum_norm

_POINTS = 64  # of the finely drawn curve


def attacks(attack, minimum, epsilons, **given):
    """The two attacks of a curve, checked.

    Args:
        attack: Name of the attack that is run at every radius.
        minimum: Name of the minimum-norm attack, which takes the other's norm unless it says so.
        epsilons: Radii, or an empty tuple for multiples of the attack's own.
        **given: `norm` and `epsilon` of attacks that set none, as far as they are known.

    Returns:
        `(attack, minimum)`, both `Attack`s.

    Raises:
        InputError: If they have no radius, different norms, or the second is no minimum-norm
            attack.
    """
    sampled = get_attack(attack, **given)
    curve_radii(sampled, epsilons or None)
    nearest = check_minimum_norm(get_attack(minimum, norm=sampled.norm), "curve_minimum")
    if nearest.norm != sampled.norm:
        raise InputError(
            f"`curve_minimum` {minimum!r} is for {nearest.norm}, but the curve's attack "
            f"{attack!r} for {sampled.norm}; choose two of one norm."
        )
    return sampled, nearest


def measure(subject, attack, minimum, epsilons, threat, **common):
    """Accuracy against the radius, as the worst case of both attacks on every image.

    Args:
        subject: `(network, x, y)`.
        attack: See `attacks`.
        minimum: See `attacks`.
        epsilons: See `attacks`.
        threat: The `soar_tf.threat_model.ThreatModel` of attacks that set none.
        **common: `seed`, `batch_size`, `progress`, `state` and `shard` of `soar_tf.evaluate`.

    Returns:
        `(curve, distances)`: an `AccuracyCurve` and a `MinimumNorms`.
    """
    sampled, nearest = attacks(attack, minimum, epsilons, norm=threat.norm, epsilon=threat.epsilon)
    curve = evaluation.accuracy_curve(*subject, sampled, epsilons or None, name=attack, **common)
    return curve, evaluation.minimum_norms(*subject, nearest, name=minimum, **common)


def section(curve, distances):
    """The report's section about a curve, JSON-serializable; for the arguments see `measure`."""
    worst = np.minimum(curve.broken_at, distances.distances)
    fine = np.unique([*curve.epsilons, *np.linspace(0.0, curve.epsilons[-1], _POINTS)])
    return curve.to_dict() | {
        "accuracy": list(curve_from_distances(worst, curve.epsilons)),
        "attacks": [
            {"attack": curve.attack, "accuracy": list(curve.accuracy)},
            {"attack": distances.attack, "accuracy": list(distances.accuracy(curve.epsilons))},
        ],
        "median_distance": distances.median if np.isfinite(distances.median) else None,
        "fine": {
            "epsilons": fine.tolist(),
            "accuracy": list(curve_from_distances(worst, fine)),
        },
    }

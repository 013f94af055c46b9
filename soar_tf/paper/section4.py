"""Section 4: the ladder of bounds on small networks; section 4.1: the logistic classifier."""

import functools
import itertools
import math

import numpy as np
import tensorflow as tf

from soar_tf import theory
from soar_tf.evaluation import PerExample
from soar_tf.ops import curvature, gradients, losses
from soar_tf.paper import recipes
from soar_tf.paper.report import Grid, Report
from soar_tf.paper.study import float64_network
from soar_tf.theory import bounds

DATASET = "digits"
NETWORKS = ("small-standard", "small-soar", "small-smooth")

_POINTS = {"smoke": 16, "short": 256, "paper": 400}
_DIRECTIONS = {"smoke": 200, "short": 5000, "paper": 20_000}
# The logistic classifier's probability of the correct class.
_CONFIDENCES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.999999)
# The dimension and weight norm of a small image classifier.
_D, _WEIGHT = 64, 4.0

LABELS = {
    "loss": "loss at the worst corner (true growth)",
    "corners": "corners of the box",
    "box": "box: the inner maximum",
    "ball": "l2 ball (eq. 5)",
    "separate": "separate maxima",
    "eigenvalue": "largest eigenvalue of H (eq. 6)",
    "spectral": "spectral norm of H (eq. 7)",
    "frobenius": "Frobenius norm of H",
    "mean_norm": "E‖Hz‖ (eq. 8)",
    "penalty": "E of the penalty (eq. 11, h → 0)",
    "scaled_mean_norm": "√(π/2) E‖Hz‖",
}


def report(study):
    """Measures and asserts the ladder on small networks, and measures the logistic classifier."""
    rungs = {rung: {} for rung in LABELS}
    ordered = {" ≤ ".join(LABELS[rung] for rung in pair): {} for pair in bounds.INEQUALITIES}
    shares = {}
    for name, seed in itertools.product(NETWORKS, study.seeds):
        ladder = _ladder(study, name, seed)
        for rung, values in ladder.items():
            rungs[rung].setdefault(name, []).append(float(np.mean(values)))
        for text, pair in zip(ordered, bounds.INEQUALITIES, strict=True):
            ordered[text].setdefault(name, []).append(_violation(ladder, *pair))
        for text, value in _shares(ladder).items():
            shares.setdefault(text, {}).setdefault(name, []).append(value)
    logistic = _logistic_rows(study)
    grids = [
        _grid(
            "ladder",
            "Growth of the loss and its bounds, means over test images (nats).",
            rungs,
            corner="rung",
        ),
        _grid(
            "inequalities",
            "Largest violation of each inequality, relative to the upper rung: only rounding.",
            ordered,
            corner="inequality",
        ),
        _grid("shares", "Share of the images.", shares, corner="where", unit="%"),
        _logistic_grid(logistic),
    ]
    return Report(
        "Section 4: the ladder of bounds",
        grids,
        _findings(rungs, shares, logistic),
        {"d": _dimension(study), "epsilon": study.epsilon, "logistic": {"d": _D, "norm": _WEIGHT}},
        lambda: _draw(logistic),
    )


def _dimension(study):
    return math.prod(study.dataset_of(NETWORKS[0]).image_shape)


def _ladder(study, name, seed):
    """Every rung for each test image, and the true growth of the loss at its worst corner."""
    network, count = study.network(name, seed), _POINTS[study.request.budget]
    settings = {"network": network, "images": count, "epsilon": study.epsilon}

    def compute():
        images = study.dataset_of(name)["test"].take(count)
        model = float64_network(network.keras_model)
        x, y = tf.constant(images.float_images(), tf.float64), tf.constant(images.labels)

        def values(point):
            return losses.cross_entropy(y, model(point))

        loss, gradient, hessian = bounds.quadratic_model(values, x)
        ladder = bounds.ladder(gradient, hessian, study.epsilon)
        corners = itertools.product((-study.epsilon, study.epsilon), repeat=gradient.shape[1])
        worst = loss
        compiled = tf.function(values, input_signature=[tf.TensorSpec(x.shape, x.dtype)])
        for corner in corners:
            worst = tf.maximum(
                worst, compiled(x + tf.reshape(tf.constant(corner, x.dtype), [1, *x.shape[1:]]))
            )
        ladder = {"loss": worst - loss, **ladder}
        return {rung: value.numpy().tolist() for rung, value in ladder.items()}

    return {k: np.array(v) for k, v in study.measured("ladder", settings, compute).items()}


def _violation(ladder, lower, upper):
    """By how much a rung exceeds the one above it; more than rounding would be a defect."""
    scale = np.maximum(np.abs(ladder[upper]), 1e-6)
    worst = float(max(0.0, ((ladder[lower] - ladder[upper]) / scale).max()))
    if worst > 1e-6:
        raise AssertionError(f"{lower} exceeds {upper} by a relative {worst:g}.")
    return worst


def _shares(ladder):
    """Percentages of images for relations that are not inequalities."""
    ratio = (ladder["mean_norm"] + 0.5) / (ladder["frobenius"] + 0.5)
    conditions = {
        "the corners miss the box's maximum": ladder["corners"]
        < ladder["box"] * (1 - 1e-9) - 1e-12,
        "the separate maxima are below the unified bound (eq. 6)": ladder["separate"]
        < ladder["eigenvalue"],
        "E‖Hz‖ is below the spectral norm": ladder["mean_norm"] < ladder["spectral"],
        "the mean penalty is below the inner maximum": ladder["penalty"] < ladder["box"],
        "the loss itself outgrows the Taylor expansion's l2 bound": ladder["loss"] > ladder["ball"],
    }
    shares = {text: 100.0 * float(np.mean(flags)) for text, flags in conditions.items()}
    shares["E‖Hz‖ as a share of ‖H‖_F (eq. 8 says 100): mean"] = 100.0 * float(ratio.mean())
    shares["E‖Hz‖ as a share of ‖H‖_F: smallest"] = 100.0 * float(ratio.min())
    return shares


def _logistic_rows(study):
    """Section 4.1: the penalty of a logistic classifier, by confidence."""
    directions, epsilon = _DIRECTIONS[study.request.budget], study.epsilon
    rows = {}
    for confidence, seed in itertools.product(_CONFIDENCES, study.seeds):
        settings = {
            "confidence": confidence,
            "directions": directions,
            "seed": seed,
            "epsilon": epsilon,
            "d": _D,
            "weight": _WEIGHT,
        }
        compute = functools.partial(_logistic, confidence, directions, seed, epsilon)
        values = study.measured("logistic", settings, compute)
        for column, value in values.items():
            rows.setdefault(f"{confidence:g}", {}).setdefault(column, []).append(value)
    return rows


def _logistic(confidence, directions, seed, epsilon):
    """For one confidence: closed forms, the estimator of ops/curvature.py, and the true growth."""
    w = np.full(_D, _WEIGHT / math.sqrt(_D))
    x = math.log(confidence / (1 - confidence)) * w[None] / _WEIGHT**2
    worst = x - epsilon * np.sign(w)
    return {
        "bound": float(theory.logistic_bound(x, [1], w, epsilon)[0]),
        "penalty": float(theory.logistic_penalty(x, [1], w, epsilon)[0]),
        **_estimates(x[0], w, directions, seed, epsilon),
        "growth": float((theory.logistic_loss(worst, [1], w) - theory.logistic_loss(x, [1], w))[0]),
    }


def _estimates(x, w, directions, seed, epsilon):
    """The penalty as training computes it, over many directions, on copies of the point."""
    weights = tf.constant(w[:, None], tf.float32)

    def penalty(points, _, keys, hvp):
        def values(point):
            return tf.math.softplus(-tf.matmul(point, weights)[:, 0])

        gradient = gradients.input_gradient(values, points)[1]
        size = curvature.curvature_norm(values, points, gradient, keys, hvp=hvp)
        return curvature.bound_factor(_D, epsilon) * size

    def both(*arguments):
        return {hvp: penalty(*arguments, hvp) for hvp in ("exact", "finite_difference")}

    points = np.tile(x, (directions, 1))
    estimates = PerExample(both, seed=seed, purpose="logistic", batch_size=directions)(
        points, np.zeros(directions, int)
    )
    return {f"estimate_{hvp}": float(values.mean()) for hvp, values in estimates.items()}


def _grid(name, caption, rows, corner, unit=""):
    labels = LABELS | {network: recipes.RECIPES[network].label for network in NETWORKS}
    return Grid(name, caption, NETWORKS, rows, labels, unit=unit, corner=corner)


def _logistic_grid(rows):
    labels = {
        "bound": "Taylor bound in the l2 ball",
        "penalty": "penalty, closed form",
        "estimate_exact": "estimator, exact Hessian",
        "estimate_finite_difference": "estimator, h ~ U(0, 0.03)",
        "growth": "true growth of the loss",
    }
    caption = (
        f"Section 4.1: a logistic classifier (d = {_D}, ‖w‖ = {_WEIGHT:g}), by its confidence in "
        "the correct class; growth under the strongest perturbation in the box."
    )
    return Grid("logistic", caption, tuple(labels), rows, labels, corner="confidence")


def _findings(rungs, shares, logistic):
    def mean(cells):
        return np.mean([value for values in cells.values() for value in values])

    ratio = shares["E‖Hz‖ as a share of ‖H‖_F (eq. 8 says 100): mean"]
    smallest = shares["E‖Hz‖ as a share of ‖H‖_F: smallest"]
    separate = shares["the separate maxima are below the unified bound (eq. 6)"]
    below = shares["the mean penalty is below the inner maximum"]
    first, last = (logistic[f"{c:g}"] for c in (_CONFIDENCES[0], _CONFIDENCES[-1]))

    def relative(row):
        return np.mean(row["penalty"]) / np.mean(row["growth"])

    return [
        f"The mean penalty is {mean(rungs['penalty']) / mean(rungs['box']):.1f} times the inner "
        f"maximum of the Taylor expansion, over all networks.",
        f"Eq. 8 is not an equality: E‖Hz‖ is {mean(ratio):.1f} % of the Frobenius norm on average "
        f"and at least {min(min(v) for v in smallest.values()):.1f} %; it can never be below "
        "79.8 %.",
        f"Maximising the terms separately is tighter than the paper's unified bound for "
        f"{mean(separate):.1f} % of the images.",
        f"The mean penalty is below the inner maximum for {mean(below):.1f} % of the images.",
        f"The logistic penalty is {relative(first):.2f} times the true growth of the loss at "
        f"confidence {_CONFIDENCES[0]:g}, and {relative(last):.2f} times at {_CONFIDENCES[-1]:g}.",
    ]


def _draw(logistic):
    from soar_tf.plots.growth import growth

    x = [1 - float(row) for row in logistic]
    names = {
        "growth": "true growth",
        "bound": "Taylor bound",
        "penalty": "penalty",
        "estimate_finite_difference": "measured estimator",
    }
    curves = {
        label: [float(np.mean(row[column])) for row in logistic.values()]
        for column, label in names.items()
    }
    panel = {
        "x": x,
        "curves": curves,
        "title": "Logistic classifier: the penalty vanishes",
        "x_label": "1 - confidence",
        "y_label": "nats",
        "log_x": True,
        "log_y": True,
    }
    return growth([panel])

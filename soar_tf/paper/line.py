"""Figures 1 and 4: the loss along x + tη and its second-order Taylor expansions."""

import dataclasses

import numpy as np
import tensorflow as tf

from soar_tf.attacks import as_logits_fn
from soar_tf.attacks import get as get_attack
from soar_tf.evaluation import PerExample
from soar_tf.ops import gradients, losses, norms, projections
from soar_tf.paper.report import Grid, Report
from soar_tf.paper.study import float64_network

NETWORK = "standard"
# Steps of the finite difference, as l2 distances. The paper's largest is 0.03; the last one is
# about the length of a random perturbation of a CIFAR-10 image.
STEPS = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0)
POSITIONS = np.linspace(0.0, 1.0, 11)
DIRECTIONS = ("random", "pgd")

_IMAGES = {"smoke": 16, "short": 500, "paper": 1000}
_LABELS = {
    "first order": "no second-order term",
    "exact Hessian": "exact Hessian-vector product",
    "random": "random η, mean",
    "pgd": "η of PGD20, mean",
    "random, median": "random η, median",
    "pgd, median": "η of PGD20, median",
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """Figure 1 or 4, an entry of `soar_tf.paper.load`.

    Attributes:
        title: The report's title.
        panels: Number of images in the picture.
        DATASET, NETWORKS: As for every entry.
    """

    title: str
    panels: int
    DATASET: str = "cifar10"
    NETWORKS: tuple = (NETWORK,)

    def report(self, study):
        """Expands the loss of training images along random and adversarial perturbations."""
        return _report(study, self.panels, self.title)


figure1 = Figure("Figure 1: the loss along a perturbation of one training image", 1)
figure4 = Figure("Figure 4: the loss along perturbations of four training images", 4)


def _report(study, panels, title):
    approximations = ["first order", "exact Hessian", *(f"h = {h:g}" for h in STEPS)]
    columns = [name for direction in DIRECTIONS for name in (direction, f"{direction}, median")]
    errors = {name: {column: [] for column in columns} for name in approximations}
    drawn = None
    for seed in study.seeds:
        lines = {direction: _lines(study, seed, direction) for direction in DIRECTIONS}
        drawn = drawn or _select_panels(lines, panels)
        for direction, curves in lines.items():
            for name in approximations:
                error = np.abs(np.array(curves[name]) - np.array(curves["exact"])).mean(axis=1)
                errors[name][direction].append(float(error.mean()))
                errors[name][f"{direction}, median"].append(float(np.median(error)))
    caption = (
        f"Distance between the loss along x + tη and its expansion at x (nats), mean over t from 0 "
        f"to 1; mean and median over {len(lines['random']['exact'])} training images, ε = "
        f"{study.epsilon:.4g}. The finite differences are along η. If a kink of the network is "
        "closer than h, the difference is the jump divided by h: small steps have a heavy tail."
    )
    grid = Grid("errors", caption, tuple(columns), errors, _LABELS, corner="second-order term")
    data = {"t": POSITIONS.tolist(), "panels": drawn}
    return Report(title, [grid], _findings(errors), data, lambda: _draw(data))


def _lines(study, seed, direction):
    """The exact loss and each expansion, `{name: [image][position]}`."""
    network, count = study.network(NETWORK, seed), _IMAGES[study.request.budget]
    settings = {
        "network": network,
        "images": count,
        "direction": direction,
        "seed": seed,
        "epsilon": study.epsilon,
        "steps": STEPS,
        "positions": len(POSITIONS),
    }

    def compute():
        images = study.dataset()["train"].take(count)
        measure = PerExample(
            _expansions(network.keras_model, direction, study.epsilon),
            seed=seed,
            purpose="line",
            batch_size=50,
        )
        curves = measure(images.float_images(), images.labels)
        return {name: values.tolist() for name, values in curves.items()}

    return study.measured("line", settings, compute)


def _expansions(network, direction, epsilon):
    """A graph function from images to their curves; everything after η is in float64."""
    logits_fn, wide = as_logits_fn(network), float64_network(network)
    attack = get_attack("pgd20", epsilon=epsilon)

    def curves(x, y, keys):
        if direction == "pgd":
            eta = attack.perturb(logits_fn, x, y, keys) - x
        else:
            eta = projections.random_in_ball(keys, x.shape[1:], epsilon, "linf")
        point, eta = tf.cast(x, tf.float64), tf.cast(eta, tf.float64)

        def values(at):
            return losses.cross_entropy(y, wide(at))

        def along(vector):
            return tf.reduce_sum(norms.flatten(eta * vector), axis=1)

        loss, gradient = gradients.input_gradient(values, point)
        length = norms.norm(eta, "l2")
        unit = eta / norms.per_example(length, eta)
        second = {"first order": tf.zeros_like(loss)}
        second["exact Hessian"] = along(gradients.hvp_exact(values, point, eta))
        for h in STEPS:
            product = gradients.hvp_finite_difference(values, point, unit, h, gradient=gradient)
            second[f"h = {h:g}"] = length * along(product)
        t = tf.constant(POSITIONS)[None]
        results = {"exact": tf.stack([values(point + s * eta) for s in POSITIONS], axis=1)}
        for name, value in second.items():
            results[name] = loss[:, None] + t * along(gradient)[:, None] + t**2 / 2 * value[:, None]
        return results

    return curves


def _select_panels(lines, panels):
    """Selects the images to draw, evenly spaced in the ranks of the loss's growth under PGD20."""
    exact = np.array(lines["pgd"]["exact"])
    order = np.argsort(exact[:, -1] - exact[:, 0], kind="stable")
    # A single image is the median one.
    ranks = ((np.arange(panels) + 0.5) / panels * len(order)).astype(int)
    return [
        {
            "image": int(order[rank]),
            "direction": direction,
            "curves": {name: values[order[rank]] for name, values in lines[direction].items()},
        }
        for direction in DIRECTIONS
        for rank in ranks
    ]


def _findings(errors):
    findings = []
    for column in errors["exact Hessian"]:
        means = {name: np.mean(cells[column]) for name, cells in errors.items()}
        best = min(means, key=means.get)
        findings.append(
            f"{_LABELS[column]}: the best expansion is {_LABELS.get(best, best)} (error "
            f"{means[best]:.3g}). The error is {means['exact Hessian']:.3g} with the exact "
            f"Hessian, {means['first order']:.3g} without a second-order term, and "
            f"{means['h = 0.03']:.3g} with the paper's largest step, h = 0.03."
        )
    return findings


def _draw(data):
    from soar_tf.plots.line import loss_along_line

    panels = [
        {
            "title": f"image {panel['image']}, {_LABELS[panel['direction']].split(',')[0]}",
            "curves": panel["curves"],
        }
        for panel in data["panels"]
    ]
    return loss_along_line(data["t"], panels)

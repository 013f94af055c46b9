"""Section 2: a regression that is fitted perfectly, and attacked through its untrained weights."""

import functools

import numpy as np
import tensorflow as tf

from soar_tf import theory
from soar_tf.ops import random
from soar_tf.paper.report import Grid, Report

DATASET = None
NETWORKS = ()

SIGMA = 1.0
RIDGES = (0.01, 0.1, 1.0)
# Number of inputs, and of draws of the initial weights, whose losses are averaged.
_INPUTS = 8
_WORK = {
    "smoke": {"dimensions": (2, 10, 100), "draws": 4},
    "short": {"dimensions": (2, 10, 100, 1_000, 10_000, 100_000), "draws": 64},
    "paper": {"dimensions": (2, 10, 100, 1_000, 10_000, 100_000), "draws": 256},
}


def report(study):
    """Measures what section 2 derives; see `docs/theory.md`."""
    work = _WORK[study.request.budget]
    growth = {str(d): {} for d in work["dimensions"]}
    fixes = {f"lambda {ridge:g}": {} for ridge in RIDGES} | {"equation 2": {}}
    for seed in study.seeds:
        for d in work["dimensions"]:
            settings = {"d": d, "draws": work["draws"], "seed": seed, "epsilon": study.epsilon}
            compute = functools.partial(_regression, **settings)
            values = study.measured("regression", settings, compute)
            for column, value in values.items():
                growth[str(d)].setdefault(column, []).append(value)
        for row, values in _corrections(seed, study.epsilon).items():
            for column, value in values.items():
                fixes[row].setdefault(column, []).append(value)
    return Report(
        "Section 2: over-parametrised linear regression",
        [_growth_grid(growth, study.epsilon, work["draws"]), _fixes_grid(fixes)],
        _findings(growth, fixes),
        {"epsilon": study.epsilon, "sigma": SIGMA, "draws": work["draws"]},
        lambda: _draw(growth),
    )


def _inputs(seed, d):
    """Inputs on the first axis, `[n, d]`, with mean 1/2, so that E[x] differs from E[x^2]."""
    keys = random.example_keys(seed, tf.range(1), purpose="regression inputs")
    x = np.zeros((_INPUTS, d))
    x[:, 0] = 0.5 + random.normal(keys, (_INPUTS,)).numpy()[0].astype(np.float64)
    return x


def _initial_weights(seed, d, draw):
    keys = random.example_keys(seed, tf.constant([draw]), purpose="regression weights")
    return SIGMA * random.normal(keys, (d,)).numpy()[0].astype(np.float64)


def _regression(d, draws, seed, epsilon):
    """Trains from several initial weights and attacks; means over the draws."""
    x, w_star = _inputs(seed, d), np.eye(1, d)[0]
    rate = 1.0 / np.mean(x[:, 0] ** 2)
    rows = []
    for draw in range(draws):
        start = _initial_weights(seed, d, draw)
        w = theory.gradient_descent(x, start, w_star, learning_rate=0.5 * rate, steps=60)
        ridge = theory.ridge_solution(x, w_star, 0.1)
        attacked, ridge_attacked = (
            theory.squared_loss(x + theory.irrelevant_attack(v, epsilon), v, w_star).mean()
            for v in (w, ridge)
        )
        rows.append(
            {
                "moved": np.abs(w[1:] - start[1:]).max(),
                "clean": theory.squared_loss(x, w, w_star).mean(),
                "attacked": attacked,
                "equation2": theory.robustified_loss(x, w, w_star, epsilon),
                "ridge_attacked": ridge_attacked,
            }
        )
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    means["closed_form"] = theory.expected_attacked_loss(d, epsilon, SIGMA)
    means["leading_term"] = epsilon**2 * d**2 * SIGMA**2 / np.pi
    return means


def _corrections(seed, epsilon, d=10):
    """The two formulas that are misprinted in the paper, compared with measurements."""
    x, w_star = _inputs(seed, d), np.eye(1, d)[0]
    moments = x.T @ x / len(x)
    rows = {}
    for ridge in RIDGES:
        solved = np.linalg.solve(moments + ridge * np.eye(d), moments @ w_star)[0]
        mean = x[:, 0].mean()
        rows[f"lambda {ridge:g}"] = {
            "measured": float(solved),
            "corrected": float(theory.ridge_solution(x, w_star, ridge)[0]),
            "printed": float(mean / (mean + ridge)),
        }
    w = _initial_weights(seed, d, 0)
    attacked = theory.squared_loss(x + theory.irrelevant_attack(w, epsilon), w, w_star).mean()
    corrected = theory.robustified_loss(x, w, w_star, epsilon)
    extra = 0.5 * epsilon**2 * np.abs(w[1:]).sum() ** 2
    rows["equation 2"] = {
        "measured": float(attacked),
        "corrected": corrected,
        "printed": float(corrected + extra),
    }
    return rows


def _growth_grid(growth, epsilon, draws):
    columns = (
        "moved",
        "clean",
        "attacked",
        "closed_form",
        "leading_term",
        "equation2",
        "ridge_attacked",
    )
    labels = {
        "moved": "largest change of an irrelevant weight",
        "clean": "clean loss",
        "attacked": "attacked loss",
        "closed_form": "its expectation",
        "leading_term": "ε²d²σ²/π",
        "equation2": "equation 2",
        "ridge_attacked": "attacked, ridge 0.1",
    }
    caption = (
        f"Gradient descent from w(0) ~ N(0, σ² I), σ = {SIGMA:g}, attacked with ε = {epsilon:.4g}; "
        f"mean over {draws} draws of w(0)."
    )
    return Grid("growth", caption, columns, growth, labels, corner="d")


def _fixes_grid(fixes):
    labels = {
        "printed": "as printed in the paper",
        **{f"lambda {ridge:g}": f"ridge solution w₁, λ = {ridge:g}" for ridge in RIDGES},
        "equation 2": "robustified loss (equation 2)",
    }
    caption = "Two misprinted formulas: the first moment instead of the second, a missing 1/2."
    return Grid(
        "formulas", caption, ("measured", "corrected", "printed"), fixes, labels, corner="formula"
    )


def _findings(growth, fixes):
    moved = max(max(row["moved"]) for row in growth.values())
    ratios = [
        np.mean(row["attacked"]) / row["closed_form"][0]
        for row in growth.values()
        if row["closed_form"][0]
    ]
    largest, smallest = list(growth)[-1], list(growth)[-2]
    factor = np.mean(growth[largest]["attacked"]) / np.mean(growth[smallest]["attacked"])
    error = max(
        abs(a / b - 1)
        for row in growth.values()
        for a, b in zip(row["attacked"], row["equation2"], strict=True)
    )
    printed = np.mean(fixes["equation 2"]["printed"]) / np.mean(fixes["equation 2"]["measured"])
    return [
        f"Gradient descent changed no irrelevant weight by more than {moved:.2g}.",
        f"The attacked loss is {min(ratios):.3f} to {max(ratios):.3f} times its closed form.",
        f"From d = {smallest} to d = {largest} it grows by a factor of {factor:.3g}.",
        f"Equation 2, corrected, equals the attacked loss up to a relative error of {error:.2g}; "
        f"as printed it is {printed:.3f} times the loss in the example of the second table.",
    ]


def _draw(growth):
    from soar_tf.plots.growth import growth as draw

    d = [int(row) for row in growth]

    def means(column):
        return [float(np.mean(row[column])) for row in growth.values()]

    curves = {
        "measured attacked loss": means("attacked"),
        "expectation": means("closed_form"),
        "ε²d²σ²/π": means("leading_term"),
    }
    panel = {
        "x": d,
        "curves": curves,
        "title": "Attack on the irrelevant weights",
        "x_label": "d",
        "y_label": "loss",
        "log_x": True,
        "log_y": True,
    }
    return draw([panel])

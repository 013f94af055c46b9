"""The plots of a report, each a function of the report and one line in the registry.

A function takes the report, see `soar_tf.reports.evaluation.evaluate_model`, and returns
`(title, Figure)`, or `None` if the report has nothing for it to draw.
"""

from soar_tf import plots, registry
from soar_tf.evaluation.intervals import wilson


def figures(report):
    """The report's plots, `{name: (title, Figure)}`; none without matplotlib.

    Plugins (entry point group `soar_tf.plots`) are included.
    """
    if not plots.available():
        return {}
    functions, _ = registry.PLOTS.available()
    drawn = {name: draw(report) for name, draw in functions.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def accuracy_epsilon(report):
    """Accuracy against the radius, with the worst case where all attacks share one ball."""
    if "curve" not in report:
        return None
    curve = report["curve"]
    name = f"{report['dataset']} ({report['split']}, n = {report['n']})"
    same = [a["epsilon"] for a in report["attacks"] if a["norm"] == curve["norm"]]
    points = {}
    if len(set(same)) == 1 and len(same) == len(report["attacks"]):
        points["worst case over all attacks"] = (same[0], report["worst_case_accuracy"])
    figure = plots.accuracy_epsilon({name: drawn_curve(report)}, points=points)
    return "Accuracy against the radius", figure


def drawn_curve(report):
    """A report's curve as it is drawn: as finely as it is known, with its 95 % band."""
    curve, n = report["curve"], report["n"]
    curve = curve | curve.get("fine", {})
    curve["attack"] = curve_attacks(curve)
    ends = [wilson(round(share * n), n) for share in curve["accuracy"]]
    low, high = zip(*ends, strict=True)
    return curve | {"low": low, "high": high}


def curve_attacks(curve):
    """The names of a curve's attacks; earlier reports have one."""
    return " and ".join(entry["attack"] for entry in curve.get("attacks", [curve]))

"""What a report opens with: a verdict, what to do next, and the threat model in words."""

from soar_tf.formatting import percent, radius_text

ENOUGH_IMAGES = 1000
"""From this number of images on, nothing advises to take more."""


def opening(report):
    """The beginning of a report, in words.

    Args:
        report: The report, see `soar_tf.reports.evaluation.evaluate_model`.

    Returns:
        A dictionary of `verdict` (text), `kind` (`"alarm"`, `"caution"` or `"sound"`), `steps`
        (what to do next, texts with `code` in backquotes) and `threats` (the threat models, texts).

    Example:

    >>> from soar_tf.reports.opening import opening
    >>> report = {"reliability": "not checked", "n": 50,
    ...           "attacks": [{"name": "pgd20", "norm": "linf", "epsilon": 0.1}]}
    >>> opening(report)["verdict"]
    'A first look. No strong attack was run, so expect a lower accuracy.'
    """
    kind, verdict = _verdict(report)
    return {
        "verdict": verdict,
        "kind": kind,
        "steps": _steps(report),
        "threats": threats_in_words(report),
    }


def threats_in_words(report):
    """What the attacker may do, a text per threat model and one on what the attacker knows."""
    pairs = dict.fromkeys((attack["norm"], attack["epsilon"]) for attack in report["attacks"])
    texts = [_in_words(*pair) for pair in pairs]
    if report["reliability"] == "no gradients":
        knows = (
            "The attacker can ask the file for its answers, and has the model that it was exported "
            "from, with all gradients."
        )
    else:
        knows = "The attacker knows the network with all its weights and gradients (white box)."
    wanted = "Any wrong class counts as a success; an image that was misclassified before, too."
    return [*texts, f"{knows} {wanted}"]


def _in_words(norm, epsilon):
    if not norm:
        return (
            "Transformations: shifts, rotations or noise, as strong as the attack's arguments say."
        )
    radius = radius_text(epsilon)
    name = f"{norm.capitalize()} {radius}"
    if norm == "linf":
        share = f" ({percent(epsilon)})" if "/" in radius else ""
        return (
            f"{name}: every pixel value (of each colour) may change by at most {radius} of the way "
            f"from black to white{share}."
        )
    if norm == "l2":
        return (
            f"{name}: the squared changes of all pixel values add up to at most {radius}². One "
            "value may change much, or all of them a little."
        )
    return (
        f"{name}: the changes of all pixel values, taken as positive, add up to at most {radius}."
    )


def _strong(report):
    return any(attack["name"].partition(":")[0] == "autoattack" for attack in report["attacks"])


def _verdict(report):
    """Kind and text, worst news first."""
    reliability, strong = report["reliability"], _strong(report)
    if reliability == "unreliable":
        return (
            "alarm",
            "Do not rely on this accuracy. The attacks were probably misled.",
        )
    if reliability == "no gradients":
        return "caution", "This file has no gradients. Count on the accuracy of its source instead."
    if not strong:
        return "caution", "A first look. No strong attack was run, so expect a lower accuracy."
    if reliability == "not checked":
        return "caution", "A strong attack was run, but nothing checked for hidden gradients."
    if report["masking"]["verdict"] == "warn":
        return "caution", "A strong attack was run, but a check for hidden gradients warns."
    if report["n"] < ENOUGH_IMAGES:
        return "caution", "Sound, but measured on few images. Quote the interval with it."
    return "sound", "Sound: a strong attack was run, and no check found hidden gradients."


def _steps(report):
    """What to do next, the most important first."""
    steps = []
    adaptive = any(attack["name"].startswith("adaptive") for attack in report["attacks"])
    reliability = report["reliability"]
    options = [] if _strong(report) else ["--attack autoattack"]
    if reliability == "not checked" and "masking" not in report:
        options.append("--masking")
    if reliability == "unreliable":
        steps.append("If you quote this accuracy at all, say that it fails its checks.")
        if not adaptive:
            options.append("--adaptive")
    if reliability == "no gradients":
        steps.append("Measure the source with `--masking`: only there can gradients be checked.")
    if report["n"] < ENOUGH_IMAGES:
        options.append("--limit 1000")
    if options:
        steps.append(
            f"Evaluate again with `{' '.join(options)}` and another `--output`."
            + (" Smaller data sets give all they have." if "--limit" in options[-1] else "")
        )
    if report.get("masking", {}).get("verdict") in ("warn", "fail"):
        steps.append("Read what each check found, in the section on gradient masking.")
    if "curve" not in report and reliability != "no gradients":
        steps.append("Add `--curve` to see how accuracy falls as the radius grows.")
    steps.append(
        "Compare it with another network on the same images: `soar-tf compare THIS OTHER`, with "
        "the folders of both reports."
    )
    return steps

"""A zoo network's card and the zoo's index as Markdown."""

import tomli_w

from soar_tf.evaluation.intervals import wilson
from soar_tf.formatting import percent
from soar_tf.models import zoo
from soar_tf.reports.pages import render, threats
from soar_tf.reports.summary import FEW_IMAGES, few_images


def card(found):
    """A model card as Markdown.

    Args:
        found: The card, see `soar_tf.zoo.card`.

    Returns:
        The text.
    """
    report = found["report"]
    share, n = report["worst_case_accuracy"], report["n"]
    few = few_images(n, wilson(round(share * n), n))
    columns = list(dict.fromkeys(key for row in found["training"] for key in row))
    return render(
        "card.md.j2",
        card=found,
        report=report,
        few="" if few in report["note"] else few,  # cards of earlier versions lack it
        figures=zoo.figures(found),
        threats=threats(report),
        config=tomli_w.dumps(found["config"]),
        columns=columns,
        interval=_interval,
    )


def index(cards):
    """The zoo's table as Markdown.

    Args:
        cards: Mapping of names to cards.

    Returns:
        The text.
    """
    provenances = dict.fromkeys(found["data"]["provenance"] for found in cards.values())
    entries = {name: zoo.figures(found) for name, found in cards.items()}
    fewest = min((entry["n"] for entry in entries.values()), default=FEW_IMAGES)
    few = few_images(fewest, wilson(fewest // 2, fewest))
    return render("zoo.md.j2", entries=entries, provenances=provenances, few=few)


def _interval(share, n):
    low, high = wilson(round(share * n), n)
    return f"{percent(low)} to {percent(high)}"

"""A zoo network's card and the zoo's index as Markdown."""

import tomli_w

from soar_tf.evaluation.intervals import wilson
from soar_tf.formatting import percent
from soar_tf.models import zoo
from soar_tf.reports.pages import render, threats


def card(found):
    """A model card as Markdown.

    Args:
        found: The card, see `soar_tf.zoo.card`.

    Returns:
        The text.
    """
    columns = list(dict.fromkeys(key for row in found["training"] for key in row))
    return render(
        "card.md.j2",
        card=found,
        report=found["report"],
        figures=zoo.figures(found),
        threats=threats(found["report"]),
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
    return render("zoo.md.j2", entries=entries, provenances=provenances)


def _interval(share, n):
    low, high = wilson(round(share * n), n)
    return f"{percent(low)} to {percent(high)}"

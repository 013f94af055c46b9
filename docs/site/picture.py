"""Draws the README's picture from committed results: `python docs/site/picture.py`.

Accuracy on the 400 test digits of the three networks of the README's tables, without attack and
under ever stronger ones. Middle tones on no background can be read on white and on black.
"""

import json
from pathlib import Path

from matplotlib import rcParams
from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1]
PICTURE = DOCS / "pictures" / "accuracy.svg"
# Which row of which result file, and how it is called.
NETWORKS = (
    ("digits", 0, "standard training", "#8c8c8c"),
    ("digits", 1, "SOAR", "#e07b39"),
    ("digits-adversarial", 0, "adversarial training", "#3f8fd2"),
)
ATTACKS = {"clean": "no attack", "fgsm": "FGSM", "pgd20": "PGD-20", "autoattack": "AutoAttack"}
INK = "#808080"


def shares():
    """`{network: [accuracy in % for each of ATTACKS]}`, from the result files."""
    found = {}
    for file, row, name, _ in NETWORKS:
        result = json.loads((DOCS / "results" / f"{file}.json").read_text())
        found[name] = [100 * result["rows"][row][attack] for attack in ATTACKS]
    return found


def draw():
    """The picture as a figure."""
    # Text stays text, and equal input gives an equal file.
    rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "soar-tf", "font.size": 10})
    figure = Figure(figsize=(5.8, 2.9))  # its text can be read on a phone
    axes = figure.subplots()
    values = shares()
    for position, (_, _, name, color) in enumerate(NETWORKS):
        places = [i + 0.29 * (position - 1) for i in range(len(ATTACKS))]
        bars = axes.bar(places, values[name], width=0.27, color=color, label=name)
        axes.bar_label(bars, fmt="%.1f", color=INK, fontsize=8.5, padding=1)
    axes.set_xticks(range(len(ATTACKS)), ATTACKS.values())
    axes.set_ylim(0, 112)
    axes.set_yticks([0, 50, 100], ["0 %", "50 %", "100 %"])
    axes.tick_params(colors=INK, length=0)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=INK, alpha=0.3)
    axes.legend(
        ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, labelcolor=INK
    )
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    draw().savefig(PICTURE, transparent=True, metadata={"Date": None, "Creator": None})
    print(PICTURE)

"""The gallery's tables, from its JSON file."""

from benchmarks.gallery.honest import HONEST
from benchmarks.gallery.masks import BLURRED, MASKS, SEARCHED_ONLY


def text(found):
    """Markdown of all tables, each after a paragraph that `docs/fill.py` finds it by."""
    about, bare = found["about"], found["bare"]
    masks = {name: found["masks"][name] for name in MASKS if name in found["masks"]}
    honest = {name: found["honest"][name] for name in HONEST if name in found["honest"]}
    flagged = sum(bool(row["flagged_by"]) for row in masks.values())
    failed = sum(bool(row["findings"]) or row["verdict"] == "fail" for row in honest.values())
    paragraphs = (
        f"Masked networks: {_count(masks, MASKS)}, of which {flagged} are flagged. The bare "
        f"network is right on {_percent(bare['clean'])} of {about['n']} test digits, and on "
        f"{_percent(bare['autoattack'])} under AutoAttack (l-infinity, {about['epsilon']}): "
        f"the truth behind every mask.{_worst(masks)}",
        _masks_table(masks),
        f"Honest networks: {_count(honest, HONEST)}, of which {failed} fail. White-box accuracy "
        f"is what the masking checks' gradient attacks leave of {about['n']} test digits "
        f"(l-infinity, {about['honest_epsilon']}).",
        _honest_table(honest),
    )
    return "\n\n".join(paragraphs) + "\n"


def _worst(masks):
    reached = set(masks) - {*SEARCHED_ONLY, *BLURRED}
    if not reached:
        return ""
    worst = max(masks[name]["adaptive"] for name in reached)
    return (
        " Behind those that straight-through passes reach, the adaptive attack leaves "
        f"{_percent(worst)} at most."
    )


def _count(measured, entries):
    """How many are measured; all, unless the run is not at its end."""
    whole = len(measured) == len(entries)
    return f"{len(measured)}" if whole else f"{len(measured)} of {len(entries)} so far"


def _masks_table(masks):
    rows = []
    for name, row in masks.items():
        accuracies = [_percent(row[key]) for key in ("pgd20", "autoattack", "adaptive")]
        flags = ", ".join(f"`{flag}`" for flag in row["flagged_by"]) or "nothing"
        rows.append([name + _mark(name), row["half"], *accuracies, flags])
    return _table(["mask", "half", "PGD-20", "AutoAttack", "adaptive", "flagged by"], rows)


def _honest_table(honest):
    rows = []
    for name, row in honest.items():
        found = ", ".join(row["findings"]) or "finds nothing"
        accuracies = [_percent(row[key]) for key in ("clean", "white_box")]
        rows.append([name, row["half"], *accuracies, found, _verdict(row)])
    return _table(["network", "half", "clean", "white-box", "the probe", "masking checks"], rows)


def _mark(name):
    return " (search only)" if name in SEARCHED_ONLY else " (random)" if name in BLURRED else ""


def _verdict(row):
    if not row["warnings"]:
        return row["verdict"]
    return f"{row['verdict']} ({', '.join(row['warnings'])})"


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _percent(share):
    return f"{100 * share:.0f} %"

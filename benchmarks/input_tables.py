"""The tables of `benchmarks.input`, and the places of the documents that they fill.

A place is between two comments, `<!-- input: NAME -->` and `<!-- end of input -->`. Without a
committed `docs/results/benchmarks/input.json` it says how to make one. All places are filled by
`python -m benchmarks.report`.
"""

import json
import re

from benchmarks import common

FILE = common.RESULTS / "input.json"
DOCUMENTS = [common.ROOT / "docs" / name for name in ("design.md", "guides/large_data.md")]
MISSING = (
    "No measurement is committed yet: `python -m benchmarks.input`, then `python -m "
    "benchmarks.report`.\n"
)
_PLACE = re.compile(r"(<!-- input: (\w+) -->\n)(.*?)(<!-- end of input -->)", re.S)


def table(figures):
    """All tables as Markdown."""
    parts = [figures["note"]] if figures.get("note") else []
    if figures["speed"]:
        parts.append(
            f"Images per second (processor time per image), JPEG, batches of "
            f"{figures['batch_size']}:"
        )
        parts.append(speed(figures))
    if figures["waiting"]:
        parts.append("Share of a standard train step of `cnn4` spent waiting for its batch:")
        parts.append(waiting(figures))
    if figures["memory"]:
        parts.append("Peak memory above that of TensorFlow just imported:")
        parts.append(sizing(figures))
    return "\n\n".join(parts)


def speed(figures):
    """Images per second and processor time: a row for each source, a column for each side."""

    def cell(found):
        return f"{found['images_per_second']:,.0f} ({found['cpu_microseconds']:.0f} µs)"

    return _by_side(figures["speed"], cell)


def waiting(figures):
    """Shares of waiting; behind them, by how much a step is slower than on one fixed batch."""

    def cell(found):
        slower = 100 * found["slower_than_fixed"]
        return f"{100 * found['waiting']:.1f} % ({slower:+.1f} %)"

    return _by_side(figures["waiting"], cell)


def sizing(figures):
    """Memory, disk and start of folders of several sizes."""
    found = figures["memory"]
    header = (
        f"JPEG files of {found['side']} pixels",
        *("disk", "input", "training", "evaluation", "first batch at the first start"),
    )
    rows = []
    for count, folder in found["folders"].items():
        memory = [folder[kind]["peak_above_import_mib"] for kind in ("input", "train", "evaluate")]
        rows.append(
            [
                f"{int(count):,}",
                f"{folder['bytes'] / 1e6:,.0f} MB",
                *(f"{mib:,.0f} MiB" for mib in memory),
                f"{folder['input']['start_seconds']:.0f} s",
            ]
        )
    digits = [found["digits"][kind]["peak_above_import_mib"] for kind in ("train", "evaluate")]
    rows.append(["digits, in memory", "", "", *(f"{mib:,.0f} MiB" for mib in digits), ""])
    return _markdown(header, rows)


def source(figures):
    """What the figures were measured with."""
    machine = figures["machine"]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(machine["versions"].items()))
    return (
        f"`{figures['command']}` on {machine['cores']} cores ({machine['processor']}), load before "
        f"the run {machine['load']}; {listed}. {figures.get('note', '')}"
    ).strip()


def filled(text, figures):
    """A document's text with every place filled from the figures, or emptied if `None`."""
    made = {"speed": speed, "waiting": waiting, "sizing": sizing}

    def place(match):
        kind = {"sizing": "memory"}.get(match[2], match[2])
        known = figures is not None and figures.get(kind)
        body = f"\n{made[match[2]](figures)}\n\n{source(figures)}\n\n" if known else MISSING
        return match[1] + body + match[4]

    return _PLACE.sub(place, text)


def committed():
    """The committed figures, or `None`."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else None


def targets(figures):
    """Yields `(target, at most, measured)`."""
    for side, sources in figures["speed"].items():
        rate = sources["keras"]["images_per_second"] / sources["folder"]["images_per_second"]
        yield f"input of Keras's loader over ours, images/s, {side} pixels", 1, rate
        cost = sources["folder"]["cpu_microseconds"] / sources["keras"]["cpu_microseconds"]
        yield f"input, processor time over Keras's loader, {side} pixels", 1, cost
    for name, found in figures["waiting"].get("32", {}).items():
        if name not in ("keras", "tf.data"):
            yield f"waiting, per cent of a step at 32 pixels, {name}", 5, 100 * found["waiting"]
    for count, folder in figures["memory"].get("folders", {}).items():
        for kind in ("train", "evaluate"):
            above = folder[kind]["peak_mib"] - figures["memory"]["digits"][kind]["peak_mib"]
            yield f"MiB above digits, {kind}, {int(count):,} files", 1024, above


def fill():
    """Fills the places of all documents; returns those that changed."""
    changed = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        if (new := filled(text, committed())) != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


def _by_side(found, cell):
    names = list(dict.fromkeys(name for sources in found.values() for name in sources))
    rows = [
        [name, *(cell(sources[name]) if name in sources else "" for sources in found.values())]
        for name in names
    ]
    return _markdown(["", *(f"{side} pixels" for side in found)], rows)


def _markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

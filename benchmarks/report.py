"""Writes docs/benchmarks.md from the committed figures: `python -m benchmarks.report`."""

import json
import pathlib

from benchmarks import (
    attacks,
    autoattack_reference,
    common,
    epoch,
    input_tables,
    memory,
    operations,
    precision,
    probe,
    scale,
    step,
)

PAGE = common.ROOT / "docs" / "benchmarks.md"
INTRODUCTION = """# Benchmarks

Written by `python -m benchmarks.report` from the files in `docs/results/benchmarks/`; each comes
from the command in its section. Times are medians of interleaved repeats: the candidates take
turns, so that a slow minute hits them alike. F is one forward pass of the batch. A Standard step
costs 3 F, PGD-7 17 F; SOAR 14 F, and one more because its penalty's gradient is clipped by itself.
What each step does is counted in a test (`tests/training/test_passes.py`), which needs no clock.

Neural Structured Learning (NSL) is from before Keras 3: its Python has legacy Keras (tf-keras) and,
for an import that nothing here uses, an empty stand-in for `tf.estimator`.
"""
MISSED = """## What misses its target, and why

**SOAR's step over Standard's.** SOAR's passes are 15.2 F and Standard's 3.0 F, a ratio of 5.1,
and both steps run at the same share of the matrix-product rate (the last column of "Train
steps"). Below that ratio SOAR's operations would have to be quicker than Standard's. One F is
for the paper's clip of the penalty's gradient by itself; `soar-unclipped` is the step without
it. The table "Where a step's time goes" shows what is left: SOAR masks by ReLU in seven passes
where Standard does in one, and pools in more of them. With a quarter of the batch in the penalty
the passes are 8.1 F, a ratio of 2.7; small batches run at a lower rate.

**The ratio to PGD-7 depends on the process.** PGD-7's step takes one of two times, which differ by
15 %, from one process to the next. The table "Train steps" has the longer one; with the shorter,
as in "Half precision", SOAR's ratio is 0.83, which is over the limit.

**SOAR's memory over Standard's.** A second backward pass needs the activations and the gradients
of both points: four times Standard's activations. `micro_batch` bounds it by the images that go
through the network together, and gives the same step within rounding.

**Half precision turns the comparison round.** Where the processor multiplies bfloat16 matrices,
PGD-7 training may use it and SOAR, but for its PGD step, may not: a finite difference of rounded
gradients is noise. Then SOAR's step costs more than PGD-7's (section "Half precision"). The paper's
argument, robustness at less cost, is one of float32. TRADES crafts in float32, too.
"""
NETWORKS = """The networks: those of "Attacks" and of "FGSM and l2 PGD-100" are
`zoo:cifar10-cnn4-standard`, `zoo:cifar10-cnn4-adv7` and SOAR from the first one for 8 epochs.
Those of "AutoAttack beside the reference" are `cnn4` with half the width: standard (8 epochs on
20,000 images), SOAR (from it, 4 epochs, peak learning rate 0.003) and PGD-7 training (8 epochs
on 10,000 images, epsilon growing during the first 4).
"""
TARGETS = "## Targets\n\n| target | at most | measured | |\n|---|---|---|---|\n"


def load(name):
    """A benchmark's figures, or `None`."""
    path = common.RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def page():
    """The whole page."""
    parts = [INTRODUCTION]
    checks = (_step_targets, _other_targets, _attack_targets, _input_targets)
    rows = [row for check in checks for row in check()]
    if rows:
        lines = []
        for name, limit, figure in rows:
            verdict = "met" if figure <= limit else "missed"
            lines.append(f"| {name} | {limit:g} | {figure:.2f} | {verdict} |\n")
        parts += [TARGETS + "".join(lines), MISSED, NETWORKS]
    sections = (
        ("Train steps", "step", lambda f: _tables(step.table, f["networks"])),
        ("Where a step's time goes", "operations", operations.table),
        ("Half precision", "precision", precision.table),
        ("Epochs", "epoch", epoch.table),
        ("Scale", "scale", lambda f: _tables(scale.table, f["cases"])),
        ("Memory", "memory", memory.table),
        ("The probe", "probe", probe.table),
        ("Input", "input", input_tables.table),
        ("Attacks", "attacks", lambda f: _tables(attacks.table, f["networks"])),
        ("FGSM and l2 PGD-100", "attacks_l2", lambda f: _tables(attacks.table, f["networks"])),
        ("AutoAttack beside the reference", "autoattack", _autoattack),
    )
    for title, name, body in sections:
        figures = load(name)
        if figures is not None:
            parts.append(f"## {title}\n\n{_source(figures)}\n\n{body(figures)}\n")
    return "\n".join(parts)


def _source(figures):
    machine = figures["machine"]
    versions = {**machine["versions"], **figures.get("peer_versions", {})}
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return (
        f"`{figures['command']}` on {machine['cores']} cores ({machine['processor']}), load before "
        f"the run {machine['load']}; {listed}."
    )


def _tables(table, groups):
    return "\n\n".join(table(name, figures) for name, figures in groups.items())


def _autoattack(figures):
    return "\n\n".join(
        autoattack_reference.table(f"{name}, {norm}", results["clean"], results[norm])
        for name, results in figures["networks"].items()
        for norm in results
        if norm != "clean"
    )


def _step_targets():
    figures = load("step") or {"networks": {}}
    times = figures["networks"].get("cnn4", {})
    for a, b, limit in (
        ("soar", "standard", 4.9),
        ("soar", "adversarial", 0.82),
        ("soar", "torch eager soar", 0.65),
        ("soar-quarter", "standard", 2.8),
    ):
        if a in times and b in times:
            yield f"step of {a} over {b}, wall", limit, times[a]["wall"] / times[b]["wall"]


def _other_targets():
    for name, run in (load("epoch") or {"methods": {}})["methods"].items():
        yield f"overhead of fit, {name}, per cent", 8, 100 * run["wall"]["overhead"]
    if (found := load("probe")) is not None:
        yield "the probe on cnn4, seconds", probe.LIMIT, found["times"]["probe"]["wall"]
    rows = (load("memory") or {"rows": []})["rows"]
    whole = {row["batch_size"]: row["mebibytes"] for row in rows if _is(row, "standard")}
    for row in rows:
        if row["method"] == "soar":
            size, micro = row["batch_size"], row["micro_batch"]
            name = f"memory of soar over standard, batch {size}"
            name += f", micro_batch={micro}" if micro else ""
            yield name, 2.2, row["mebibytes"] / whole[size]


def _is(row, method):
    return row["method"] == method and row["micro_batch"] is None


def _attack_targets():
    for name, times in (load("attacks") or {"networks": {}})["networks"].items():
        ours, full = times.get("soar_tf pgd20"), times.get("soar_tf pgd20 full")
        for peer, limit in (("art", 1 / 3), ("foolbox", 1 / 2), ("cleverhans", 1 / 1.3)):
            theirs = times.get(f"{peer} pgd20")
            if ours and theirs:
                ratio = ours["wall"] / theirs["wall"]
                yield f"PGD-20 over {peer}, {name}", round(limit, 2), ratio
        theirs = times.get("cleverhans pgd20")
        if full and theirs:
            yield f"PGD-20, every step, over cleverhans, {name}", 1, full["wall"] / theirs["wall"]
    for name, results in (load("autoattack") or {"networks": {}})["networks"].items():
        for norm, components in results.items():
            if norm == "clean":
                continue
            for part, sides in components.items():
                a, b = sides["soar_tf"], sides["reference"]
                limit = 0.5 if part == "autoattack" else 1.5
                difference = abs(a["accuracy"] - b["accuracy"])
                yield f"points between {part} and its reference, {name}, {norm}", limit, difference
            if "autoattack" in components:
                whole = components["autoattack"]
                ratio = whole["soar_tf"]["wall"] / whole["reference"]["wall"]
                yield f"AutoAttack over its reference, wall, {name}, {norm}", 0.7, ratio


def _input_targets():
    figures = load("input")
    return input_tables.targets(figures) if figures else ()


def main():
    """Writes the page, and fills the tables of the input in the other documents."""
    pathlib.Path(PAGE).write_text(page(), encoding="utf-8")
    input_tables.fill()


if __name__ == "__main__":
    main()

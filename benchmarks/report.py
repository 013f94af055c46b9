"""Writes docs/benchmarks.md from the committed figures: `python -m benchmarks.report`."""

import json
import pathlib

from benchmarks import (
    attacks,
    autoattack_reference,
    common,
    cycles,
    epoch,
    first_answer,
    input_tables,
    memory,
    operations,
    precision,
    probe,
    scale,
    step,
    trained,
)

PAGE = common.ROOT / "docs" / "benchmarks.md"
STUDY = common.ROOT / "docs" / "results" / "methods-cifar10.json"
INTRODUCTION = """# Benchmarks

Written by `python -m benchmarks.report` from the files in `docs/results/benchmarks/`; each comes
from the command in its section. Times are medians of interleaved repeats: the candidates take
turns, so that a slow minute hits them alike. On a machine with other jobs (see each section's
load) only ratios mean something, those of CPU time more than those of wall time. F is one forward
pass of the batch. What each step does is counted in a test (`tests/training/test_passes.py`), which
needs no clock.
"""
PAYING = """## What you pay

A train step of `cnn4` at batch 128 and its memory, in units of the standard step's, and what 10,000
CIFAR-10 images and a short schedule gave with each method ([how](results/methods-cifar10.md)). The
price of SOAR's step depends on the share s of examples whose norm is below the clip, since only
their penalty has a gradient: 7 F + 12 F s against Standard's 3 F, and at most 15 F.
"""
MISSED = """### What misses its target, and why

**SOAR on a new network.** The rows without a network's name are of random weights and images, where
every pass is recorded: 15.2 F against Standard's 3.0 F. One F is for the paper's clip of the
penalty's gradient by itself; `soar-unclipped` is the step without it. With a quarter of the batch
in the penalty the passes are 8.1 F; small batches run at a lower rate.

**The ratio to PGD-7 depends on the process.** PGD-7's step takes one of two times, which differ by
15 %, from one process to the next.

**SOAR's memory over Standard's.** A second backward pass needs the activations and the gradients
of both points: four times Standard's activations where all examples are recorded. `micro_batch`
bounds it by the images that go through the network together, and gives the same step within
rounding.

**Half precision turns the comparison round.** Where the processor multiplies bfloat16 matrices,
PGD-7 training may use it and SOAR, but for its PGD step, may not: a finite difference of rounded
gradients is noise. Then SOAR's step costs more than PGD-7's (section "Half precision"). The paper's
argument, robustness at less cost, is one of float32. TRADES crafts in float32, too.

**The time to the first answer.** Of what comes after the import of TensorFlow and Keras, PGD-20's
main thread spends about two thirds on the data set: it imports TensorFlow Datasets and decodes all
test images, whose fingerprint says whether their pixels are the original ones. The rest is loading
the network, probing it and tracing the attack.

**Stopping searches that repeat themselves** was tried and dropped. In l-infinity a search could end
where its state comes again exactly. APGD's state (point, point before, step size) never did, so
AutoAttack would gain nothing, nor did PGD-20's; PGD-100 on adversarially trained networks spends a
quarter to a third of its steps in cycles, but only the masking checks take so many steps (section
"Exact cycles").
"""
NETWORKS = """The networks: those of "Attacks" and of "FGSM and l2 PGD-100" are
`zoo:cifar10-cnn4-standard`, `zoo:cifar10-cnn4-adv7` and SOAR from the first one for 8 epochs.
Those of "AutoAttack beside the reference" are `cnn4` with half the width: standard (8 epochs on
20,000 images), SOAR (from it, 4 epochs, peak learning rate 0.003) and PGD-7 training (8 epochs
on 10,000 images, epsilon growing during the first 4).

Neural Structured Learning (NSL) is from before Keras 3: its Python has legacy Keras (tf-keras) and,
for an import that nothing here uses, an empty stand-in for `tf.estimator`.
"""
TARGETS = "## Targets\n\n| target | at most | measured | |\n|---|---|---|---|\n"


def load(name):
    """A benchmark's figures, or `None`."""
    path = common.RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def page():
    """The whole page."""
    spent = (
        ("Trained networks", "trained", lambda f: _tables(trained.table, f["networks"])),
        ("Where a step's time goes", "operations", operations.table),
        ("Half precision", "precision", precision.table),
        ("Epochs", "epoch", epoch.table),
        ("Scale", "scale", lambda f: _tables(scale.table, f["cases"])),
        ("Memory on trained networks", "memory_trained", memory.table),
        ("Memory", "memory", memory.table),
        ("The probe", "probe", probe.table),
        ("Time to the first answer", "first_answer", first_answer.table),
        ("Input", "input", input_tables.table),
        ("Exact cycles", "cycles", cycles.table),
    )
    peers = (
        ("Train steps", "step", lambda f: _tables(step.table, f["networks"])),
        ("Attacks", "attacks", lambda f: _tables(attacks.table, f["networks"])),
        ("FGSM and l2 PGD-100", "attacks_l2", lambda f: _tables(attacks.table, f["networks"])),
        ("AutoAttack beside the reference", "autoattack", _autoattack),
    )
    parts = [INTRODUCTION, PAYING, _paying()]
    parts += ["## Where the time and the memory go\n", *_sections(spent)]
    parts += ["## Beside others\n", NETWORKS, *_sections(peers)]
    checks = (_step_targets, _other_targets, _attack_targets, _input_targets)
    rows = [row for check in checks for row in check()]
    if rows:
        lines = []
        rows.sort(key=lambda row: row[2] <= row[1])  # those that are missed come first
        for name, limit, figure in rows:
            verdict = "met" if figure <= limit else "missed"
            lines.append(f"| {name} | {limit:.3g} | {figure:.2f} | {verdict} |\n")
        parts += [TARGETS + "".join(lines), MISSED]
    return "\n".join(parts)


def _sections(sections):
    for title, name, body in sections:
        figures = load(name)
        if figures is not None:
            text = body(figures).replace("### ", "#### ")
            yield f"### {title}\n\n{_source(figures)}\n\n{text}\n"


def _paying():
    """A row per method: step, memory, accuracies."""
    times = (load("step") or {"networks": {}})["networks"].get("cnn4", {})
    rows = (load("memory") or {"rows": []})["rows"]
    bases = memory.whole_standard(rows)
    sizes = {row["method"]: row for row in rows if row["batch_size"] == 128 and not _parts(row)}
    study = json.loads(STUDY.read_text(encoding="utf-8"))["rows"]
    lines = [
        "| method | step | memory | clean | AutoAttack |",
        "|---|---|---|---|---|",
    ]

    def add(label, name, cost, size):
        found = study.get(name, {})
        cells = [label, f"{cost:.1f}", f"{size:.1f}" if size else ""]
        cells += [f"{100 * found[key]:.0f} %" if found else "" for key in ("clean", "autoattack")]
        lines.append("| " + " | ".join(cells) + " |\n")

    costs = {
        name: times[name]["wall"] / times["standard"]["wall"] for name in study if name in times
    }
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        row = sizes.get(name)
        label = "soar, no example clipped" if name == "soar" else name
        add(label, name, cost, row and row["mebibytes"] / bases[memory.place(row)])
    more = (load("memory_trained") or {"rows": []})["rows"]
    bases = memory.whole_standard(more)
    for network, run in (load("trained") or {"networks": {}})["networks"].items():
        row = next((r for r in more if r["method"] == "soar" and r["network"] == network), None)
        label = f"soar, {network} network (s = {trained.share(run):.2f})"
        cost = run[trained.SKIPPED]["cpu"] / run["standard"]["cpu"]
        add(label, "", cost, row and row["mebibytes"] / bases[memory.place(row)])
    return "\n".join(lines[:2]) + "\n" + "".join(lines[2:])


def _parts(row):
    return row["micro_batch"] is not None


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
    times = (load("step") or {"networks": {}})["networks"].get("cnn4", {})
    for a, b, limit in (
        ("soar", "standard", 4.9),
        ("soar", "adversarial", 0.82),
        ("soar", "torch eager soar", 0.65),
        ("soar-quarter", "standard", 2.8),
    ):
        if a in times and b in times:
            yield f"step of {a} over {b}, new network", limit, times[a]["wall"] / times[b]["wall"]
    for name, run in (load("trained") or {"networks": {}})["networks"].items():

        def over(base, run=run):
            return run[trained.SKIPPED]["cpu"] / run[base]["cpu"]

        few = trained.share(run) <= 0.1
        yield f"step of soar over standard, {name} network", trained.limit(run), over("standard")
        limit = 0.6 if few else 0.7
        yield f"step of soar over adversarial, {name} network", limit, over("adversarial")
        yield f"step of soar over recording all, {name} network", 1, over(trained.WHOLE)
        if "torch eager soar" in run:
            yield (
                f"step of soar over torch eager soar, {name} network",
                1 / 2.2,
                over("torch eager soar"),
            )


def _other_targets():
    for name, run in (load("epoch") or {"methods": {}})["methods"].items():
        limit = 5 if name == "standard" else 8
        yield f"overhead of fit, {name}, per cent", limit, 100 * run["wall"]["overhead"]
    answers = load("first_answer") or {"runs": {}, "targets": {}}
    for name, limit in answers["targets"].items():
        if name in answers["runs"]:
            yield f"{name} over the bare import", limit, answers["runs"][name]["cpu_ratio"]
    if (found := load("probe")) is not None:
        yield "the probe on cnn4, seconds", probe.LIMIT, found["times"]["probe"]["wall"]
    for kind in ("memory", "memory_trained"):
        rows = (load(kind) or {"rows": []})["rows"]
        whole = memory.whole_standard(rows)
        for row in rows:
            limit = {"soar": 2.2, "soar-quarter": 2.3}.get(row["method"])
            if limit:
                network = row.get("network", "new")
                name = f"memory of {row['method']} over standard, batch {row['batch_size']}"
                name += f", micro_batch={row['micro_batch']}" if _parts(row) else ""
                ratio = row["mebibytes"] / whole[memory.place(row)]
                yield f"{name}, {network} network", limit, ratio


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
                limit = 0.7 if name == "standard" else 0.45
                yield f"AutoAttack over its reference, wall, {name}, {norm}", limit, ratio


def _input_targets():
    figures = load("input")
    return input_tables.targets(figures) if figures else ()


def main():
    """Writes the page, and fills the tables of the input in the other documents."""
    pathlib.Path(PAGE).write_text(page(), encoding="utf-8")
    input_tables.fill()


if __name__ == "__main__":
    main()

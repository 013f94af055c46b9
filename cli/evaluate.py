"""`soar-tf evaluate`."""

import json
from pathlib import Path

import click

from soar_tf.cli import params, settings
from soar_tf.cli.completion import Model
from soar_tf.cli.progress import drawer
from soar_tf.cli.startup import load_tensorflow
from soar_tf.errors import InputError, RunError
from soar_tf.formatting import percent, radius_text, rate_text, threat_text
from soar_tf.runs import cluster as clusters
from soar_tf.runs.evaluation_config import EvaluationConfig


@click.command(short_help="Attack a trained model and print its robust accuracy.")
@click.argument("model", type=Model(), metavar="MODEL")
@settings.options(EvaluationConfig)
@click.option(
    "--strategy",
    type=click.Choice(["mirrored"]),
    help="mirrored: spread the images over all GPUs; the result does not depend on it. [default: "
    "one device]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["robustbench"]),
    help="Print, and write with --output, the form of RobustBench's model entries. [default: text; "
    "see --json]",
)
@params.verbose_option
@params.json_option
def evaluate(model, strategy, form, verbose, as_json, **options):
    """Attack MODEL: a run directory, a .keras, .tflite or .onnx file, a SavedModel or zoo:NAME.

    Robust accuracy is the share of all images that are classified correctly and that the attack
    did not break; the worst case counts, per image, every attack. Each figure is an upper bound:
    a stronger attack can only lower it.

    Example: soar-tf evaluate runs/digits --attack pgd20 --attack autoattack --output reports/digits
    """
    given = settings.given(EvaluationConfig, options)
    config = EvaluationConfig(**given)
    _check_options(config, given)
    if form and as_json:
        raise InputError("--format and --json are two forms of one output; give one of them.")
    load_tensorflow()
    from soar_tf.reports import evaluation, robustbench
    from soar_tf.training import strategies

    if form:
        robustbench.check_attacks(config.attacks)
    try:
        with strategies.scope(strategies.make(clusters.Cluster(strategy))):
            report = evaluation.evaluate_model(model, config, progress=drawer(verbose))
    except KeyboardInterrupt:
        if config.state is None and not is_folder(config.output):
            raise
        raise RunError("interrupted; the same command goes on after the last batch.") from None
    if form and config.output is not None:
        robustbench.write(report, Path(config.output))
    if form or as_json:
        click.echo(json.dumps(robustbench.entry(report) if form else report, indent=2))
        return
    click.echo("\n".join(report_lines(report)))
    if config.output is not None and is_folder(config.output):
        click.echo(f"Report: {Path(config.output) / 'report.html'}")


def _check_options(config, given):
    """Refuses options that would do nothing."""
    if config.masking_source is not None and not config.masking:
        raise InputError("--masking-source needs --masking.")
    for name in ("curve_attack", "curve_minimum", "curve_epsilons"):
        if name in given and not config.curve:
            raise InputError(f"--{name.replace('_', '-').removesuffix('s')} needs --curve.")
    if config.save_adversarial and not is_folder(config.output):
        raise InputError("--save-adversarial needs --output DIR.")
    if config.shard and not is_folder(config.output):
        raise InputError("--shard needs --output DIR, which soar-tf merge reads.")


def is_folder(output):
    return output is not None and not output.endswith(".json")


def report_lines(report):
    """The report as lines of text."""
    rounded = "uint8_worst_case_accuracy" in report
    rows = [["clean", "", percent(report["clean_accuracy"]), "", "", ""]]
    for attack in report["attacks"]:
        rows.append(
            [
                attack["name"],
                threat_text(attack["norm"], attack["epsilon"]),
                percent(attack["robust_accuracy"]),
                percent(attack["uint8_accuracy"]) if rounded else "",
                f"{attack['seconds']:.1f}",
                rate_text(attack["images_per_second"]),
            ]
        )
    unreliable = " (unreliable)" if report["reliability"] == "unreliable" else ""
    as_uint8 = percent(report["uint8_worst_case_accuracy"]) if rounded else ""
    worst = percent(report["worst_case_accuracy"])
    rows.append(["worst case" + unreliable, "", worst, as_uint8, "", ""])
    header = ["attack", "threat model", "accuracy", "as uint8", "seconds", "images/s"]
    if not rounded:
        header, *rows = (row[:3] + row[4:] for row in (header, *rows))
    low, high = report["worst_case_interval"]
    lines = [
        params.table(rows, header),
        f"Worst case: 95 % interval {percent(low)} to {percent(high)}, n = {report['n']}.",
        f"{report['n']} images of {report['dataset']} ({report['split']}), pixels in [0, 1], "
        f"seed {report['seed']}.",
        *(
            []
            if report["data"].get("sample", "all") == "all"
            else [f"Sample: {report['data']['sample']}."]
        ),
    ]
    if rounded:
        lines.append(
            "{still_fool} of the {found} images that broke still fool after rounding to "
            "8 bits.".format(**report["uint8"])
        )
    return [*lines, *_sections(report), report["note"]]


def _sections(report):
    """What was measured besides the attacks, each part between empty lines."""
    if "curve" in report:
        yield from ("", curve_table(report["curve"]), "")
    if "shipped" in report:
        yield from ("", shipped_table(report), "")
    if "corruptions" in report:
        yield from ("", corruption_table(report["corruptions"]), "")
    if "masking" in report:
        yield from ("", masking_table(report["masking"]), "")


def curve_table(curve):
    """Accuracy against the radius as text: the worst case, each attack, the median distance."""
    columns = [(entry["attack"], entry["accuracy"]) for entry in curve.get("attacks", [])]
    columns.insert(0, ("worst case" if columns else curve["attack"], curve["accuracy"]))
    rows = [
        [radius_text(epsilon), *(percent(accuracy[k]) for _, accuracy in columns)]
        for k, epsilon in enumerate(curve["epsilons"])
    ]
    norm = curve["norm"].capitalize()
    lines = [params.table(rows, [f"{norm} radius", *(name for name, _ in columns)])]
    if "median_distance" in curve:
        median = curve["median_distance"]
        found = "none, less than half broke" if median is None else f"{norm} {radius_text(median)}"
        lines.append(f"Median distance ({columns[-1][0]}): {found}.")
    return "\n".join(lines)


def shipped_table(report):
    """A file without gradients and its source, side by side, and what can be said."""
    shipped = report["shipped"]
    pairs = {"clean": (report["clean_accuracy"], shipped["source_clean_accuracy"])}
    pairs["missing gradients taken for zeros"] = (shipped["naive_accuracy"], None)
    for attack in report["attacks"]:
        source = shipped["source_accuracy"][attack["name"]]
        pairs[attack["name"]] = (attack["robust_accuracy"], source)
    worst = report["worst_case_accuracy"], shipped["source_worst_case_accuracy"]
    pairs["worst case"] = worst
    rows = [
        [name, *("" if share is None else percent(share) for share in shares)]
        for name, shares in pairs.items()
    ]
    header = ["attack", "this file", str(shipped["source"])]
    checks = checks_table(shipped["checks"])
    about = f"{shipped['runtime']}, {shipped['bytes'] / 1000:.1f} kB."
    return "\n".join([about, params.table(rows, header), "", checks])


def corruption_table(corruptions):
    """Accuracies on corrupted images as text, one row per corruption."""
    rows = [
        [name, *(percent(share) for share in shares)]
        for name, shares in (*corruptions["accuracy"].items(), ("mean", corruptions["by_severity"]))
    ]
    header = ["corruption, severity", "1", "2", "3", "4", "5"]
    mean = f"Mean accuracy on corrupted images: {percent(corruptions['mean'])}."
    return "\n".join([params.table(rows, header), mean, corruptions["note"]])


def masking_table(masking):
    """The masking checks as text: name, verdict, share and message, then the indicators."""
    lines = [checks_table(masking["checks"]), f"Gradient masking: {masking['verdict']}."]
    if (found := masking.get("indicators")) is not None:
        lines += ["", "Why attacks failed:"]
        lines += [f"  {entry['sentence']}" for entry in found["indicators"]]
    return "\n".join(lines)


def checks_table(checks):
    """Checks as text, one per line."""
    rows = [
        [check["name"], check["verdict"], percent(check["figure"]), check["sentence"]]
        for check in checks
    ]
    lines = params.table([row[:3] for row in rows], ["check", "verdict", "figure"]).splitlines()
    sentences = [f"  {row[3]}" for row in rows]
    body = [line + sentence for line, sentence in zip(lines[2:], sentences, strict=True)]
    return "\n".join([*lines[:2], *body])

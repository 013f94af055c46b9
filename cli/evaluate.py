"""`soar-tf evaluate`."""

import json

import click

from soar_tf.cli import params
from soar_tf.cli.completion import Registered
from soar_tf.cli.startup import load_tensorflow
from soar_tf.errors import InputError


@click.command(short_help="Attack a trained model and print its robust accuracy.")
@click.argument("model", type=click.Path(), metavar="MODEL")
@params.attack_options
@click.option(
    "--attack",
    "attacks",
    type=Registered("attacks"),
    multiple=True,
    metavar="NAME[:k=v,...]",
    help="Attack, such as fgsm, bim, pgd7, pgd20, l2pgd100 or pgd:steps=50,epsilon=4/255; see "
    "`soar-tf list attacks`. Repeatable. [default: fgsm, pgd20]",
)
@click.option(
    "--masking", is_flag=True, help="Also check for gradient masking: can the figures be trusted?"
)
@click.option(
    "--masking-source",
    type=click.Path(),
    metavar="MODEL",
    help="Model for the transfer check of --masking, best one trained without a defence. "
    "[default: none, no such check]",
)
@click.option(
    "--output", type=click.Path(), metavar="FILE", help="Write the report as JSON. [default: none]"
)
@params.json_option
def evaluate(model, attacks, epsilon, output, as_json, **options):
    """Attack MODEL: a run directory, a .keras file or a SavedModel folder.

    Robust accuracy is the share of all images that are classified correctly and that the attack
    did not break; the worst case counts, per image, every attack. Each figure is an upper bound:
    a stronger attack can only lower it.

    Example: soar-tf evaluate runs/digits --attack pgd20 --attack l2pgd100
    """
    if options["masking_source"] is not None and not options["masking"]:
        raise InputError("--masking-source needs --masking.")
    load_tensorflow()
    from soar_tf.experiments import summary

    report = summary.evaluate_model(
        model,
        attacks=attacks or ("fgsm", "pgd20"),
        epsilon=epsilon,
        output=output,
        progress=progress,
        **options,
    )
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    rows = [["clean", "", params.percent(report["clean_accuracy"]), "", ""]]
    for attack in report["attacks"]:
        norm = attack["norm"]  # None for transformations, which no ball bounds
        radius = f"{norm.capitalize()} {params.number_text(attack['epsilon'])}" if norm else "-"
        speed = f"{attack['images_per_second']:.0f}"
        rows.append([attack["name"], radius, params.percent(attack["robust_accuracy"]),
                     f"{attack['seconds']:.1f}", speed])  # fmt: skip
    rows.append(["worst case", "", params.percent(report["worst_case_accuracy"]), "", ""])
    click.echo(params.table(rows, ["attack", "threat model", "accuracy", "seconds", "images/s"]))
    click.echo(
        f"{report['n']} images of {report['dataset']} ({report['split']}), seed {report['seed']}."
    )
    if "masking" in report:
        click.echo("\n" + masking_table(report["masking"]) + "\n")
    click.echo(report["note"])


def masking_table(masking):
    """The masking checks as text: name, verdict and figure, then a sentence each."""
    rows = [
        [check["name"], check["verdict"], params.percent(check["figure"]), check["sentence"]]
        for check in masking["checks"]
    ]
    lines = params.table([row[:3] for row in rows], ["check", "verdict", "figure"]).splitlines()
    sentences = [f"  {row[3]}" for row in rows]
    body = [line + sentence for line, sentence in zip(lines[2:], sentences, strict=True)]
    return "\n".join([*lines[:2], *body, f"Gradient masking: {masking['verdict']}."])


def progress(name, done, total):
    """Draws an attack's progress on stderr."""
    end = "\n" if done >= total else ""
    click.echo(f"\r{name}: {done}/{total} images{end}", err=True, nl=False)

"""`soar-tf doctor`."""

import json
import textwrap

import click

from soar_tf.cli import params, settings
from soar_tf.cli.startup import load_tensorflow
from soar_tf.runs.settings import ImageSettings

_COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command(short_help="Check this machine: versions, devices, data sets, a self-test.")
@settings.options(ImageSettings, ["data_dir"])
@params.json_option
@click.pass_context
def doctor(context, data_dir, as_json):
    """Check whether everything works here, and say what to do about what does not.

    Looks at versions, devices, settings, disk and data sets, and takes ten seconds for a self-test:
    gradients, second derivatives, an attack, and a step of SOAR against a stored value. Each is
    repeated on every accelerator, and the step also with XLA, in mixed precision and under
    TensorFlow's TF32 default. Exit code 1 if there is a problem; warnings leave it 0.

    Example: soar-tf doctor --data-dir ~/tensorflow_datasets
    """
    load_tensorflow()
    from soar_tf import doctor as room

    findings = []
    for finding in room.examine(data_dir):
        findings.append(finding)
        if not as_json:
            _print(finding)
    problems = sum(finding.status == "problem" for finding in findings)
    if as_json:
        report = {"healthy": not problems, "findings": [f.to_dict() for f in findings]}
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(f"{problems} problems." if problems else "No problems.")
    context.exit(1 if problems else 0)


def _print(finding):
    status = click.style(f"{finding.status:7}", fg=_COLORS[finding.status])
    click.echo(f"{status}  {finding.name:22}  {finding.found}")
    if finding.advice:
        click.echo(textwrap.indent(f"-> {finding.advice}", " " * 9))

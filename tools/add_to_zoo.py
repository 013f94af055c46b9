r"""Makes an entry of the zoo from a run directory and the report of its evaluation.

    soar-tf evaluate RUN --attack fgsm --attack pgd20 --attack autoattack --masking --limit 1000 \\
        --output REPORT
    python tools/add_to_zoo.py RUN REPORT NAME
    python tools/add_to_zoo.py --refresh        writes the Markdown of all cards again

The zoo is `saved_models/`, or the folder that SOAR_TF_ZOO names. A report of other weights is
refused, and one without AutoAttack or the masking checks. What was evaluated is measured again on
the first 256 test images, and that is what the tests compare with.
"""

import csv
import os
import shlex
import shutil
from pathlib import Path

import click

from soar_tf import files
from soar_tf.cli.startup import load_tensorflow
from soar_tf.errors import InputError
from soar_tf.models import loading, zoo

CHECKED = 256  # images that every entry's figures are measured on again
ATTACKS = ("fgsm", "pgd20", "autoattack")
_ENVIRONMENT = ("versions", "git_commit", "processor", "cpu_count", "devices")
# The largest difference of the SavedModel's logits, relative to their range: rounding.
_SAME = 1e-5


@click.command()
@click.argument("run", type=click.Path(), required=False)
@click.argument("report", type=click.Path(), required=False)
@click.argument("name", required=False)
@click.option("--data-dir", type=click.Path(), help="Folder of tensorflow-datasets. [the run's]")
@click.option("--limit-note", "notes", multiple=True, help="A further sentence under Limits.")
@click.option("--replace", is_flag=True, help="Replace the entry of this name.")
@click.option("--refresh", is_flag=True, help="Only write the Markdown again.")
def main(run, report, name, data_dir, notes, replace, refresh):
    """Add the network of RUN, evaluated in REPORT (a folder or a .json), to the zoo as NAME."""
    if refresh == (name is not None):
        raise click.UsageError("RUN REPORT NAME, or --refresh alone.")
    load_tensorflow()
    try:
        if not refresh:
            add(run, report, name, data_dir=data_dir, notes=notes, replace=replace)
        refresh_markdown()
    except InputError as error:
        raise click.UsageError(str(error)) from None
    for entry, size in sizes().items():
        click.echo(f"{entry}: {size / 1e6:.1f} MB")
    click.echo(f"all: {sum(sizes().values()) / 1e6:.1f} of {zoo.MAX_BYTES / 1e6:.0f} MB")


def add(run, report, name, *, data_dir=None, notes=(), replace=False):
    """Writes the entry; see the top of this file.

    Args:
        run: A finished run directory.
        report: The report's folder, or its `.json`.
        name: The entry's name.
        data_dir: Folder of tensorflow-datasets; `None` takes the run's own.
        notes: Further sentences for the card's limits.
        replace: Whether an entry of this name is replaced.

    Returns:
        The entry's folder.

    Raises:
        InputError: If any of these cannot be used or do not belong together.
    """
    from soar_tf.runs import models

    place = zoo.folder() / zoo.check_name(name)
    if place.exists() and not replace:
        raise InputError(f"`name` {name} is in the zoo already; --replace replaces it.")
    model = models.load(run)
    if not model.config or str(run).startswith(zoo.SCHEME):
        raise InputError(f"`run` must be a finished run directory. Received: {run}.")
    found = read_report(report)
    check_report(found, report, model)
    card = make_card(Path(run), name, model, found)
    card["check"] = measured(model.network, found, data_dir or model.config.get("data_dir"))
    card["limits"] = [*limits(card), *notes]
    write(card, model.network, place)
    return place


def read_report(path):
    """The report as a dictionary."""
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    if (found := files.read_json(path)) is None:
        raise InputError(f"`report` {path} does not exist.")
    return found


def check_report(report, path, model):
    """Refuses a report that does not tell all, or that tells of another network."""
    from soar_tf.evaluation.state import fingerprint

    names = {zoo.attack_key(entry["name"]) for entry in report.get("attacks", [])}
    for missing in [name for name in ATTACKS if name not in names]:
        raise InputError(f"`report` {path} lacks {missing}; evaluate with --attack {missing}.")
    if "masking" not in report:
        raise InputError(f"`report` {path} lacks the masking checks; evaluate with --masking.")
    if report.get("weights") != fingerprint(*model.network.get_weights()):
        raise InputError(
            f"`report` {path} is of other weights than {model.name}: their fingerprint is "
            f"{report.get('weights')} there; evaluate this run."
        )
    if (report["dataset"], report["split"]) != (model.config["dataset"], "test"):
        raise InputError(
            f"`report` {path} must be on the test images of {model.config['dataset']}. Received: "
            f"{report['dataset']} ({report['split']})."
        )


def make_card(run, name, model, report):
    """The card, without the figures that are measured anew, the files and the limits."""
    from soar_tf.evaluation.state import fingerprint

    manifest = files.read_json(run / "manifest.json")
    commands, started_from = ancestry(run)
    environment = {key: report["environment"].get(key) for key in ("command", *_ENVIRONMENT)}
    environment["command"] = portable(environment["command"] or "unknown")
    return {
        "format": zoo.FORMAT,
        "name": name,
        "parameters": model.network.count_params(),
        "weights": fingerprint(*model.network.get_weights()),
        "commands": commands,
        "started_from": started_from,
        "config": {k: _last_part(v) for k, v in model.config.items() if k != "data_dir"},
        "seed": manifest["seed"],
        "environment": {key: manifest.get(key) for key in _ENVIRONMENT},
        "seconds": manifest["seconds"],
        "data": manifest["dataset"],
        "training": training_rows(run / "log.csv"),
        "report": {**report, "model": f"zoo:{name}", "environment": environment},
    }


def ancestry(run):
    """The commands that made a run, those of the runs that it started from first.

    Returns:
        `(commands, started_from)`; the latter is a sentence's end, or `None`.
    """
    from soar_tf.evaluation.state import fingerprint
    from soar_tf.runs import models, run_directory
    from soar_tf.runs.config_file import read_toml

    command = portable(files.read_json(run / "manifest.json")["command"])
    start = read_toml(run / "config.toml").get("init_from")
    if start is None:
        return [command], None
    if start.startswith(zoo.SCHEME):
        return [*zoo.card(start)["commands"], command], start
    # Where the command was given is not known; runs that belong together lie side by side.
    parent = next((p for p in (Path(start), run.parent / start) if run_directory.is_run(p)), None)
    if parent is None:
        raise InputError(f"`run` {run} started from {start}, which is no run directory here.")
    before, _ = ancestry(parent)
    weights = fingerprint(*models.load(parent).network.get_weights())
    same = [name for name in zoo.names() if zoo.card(name)["weights"] == weights]
    return [*before, command], zoo.SCHEME + same[0] if same else f"the run {parent.name}"


def portable(command):
    """A command without this machine's folders."""
    words = shlex.split(command)
    if words[:1] == ["__main__.py"]:
        words[0] = "soar-tf"
    for i, word in enumerate(words):
        if i and words[i - 1] == "--data-dir":
            words[i] = "DIR"
        elif word.startswith("/"):
            words[i] = Path(word).name
    return shlex.join(words)


def _last_part(value):
    is_path = isinstance(value, str) and value.startswith("/")
    return Path(value).name if is_path else value


def training_rows(path):
    """The log, a dictionary an epoch."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        {key: _figure(key, value) for key, value in row.items() if key and value} for row in rows
    ]


def _figure(key, value):
    if key == "phase":
        return value
    return int(value) if key == "epoch" else float(f"{float(value):.5g}")


def measured(network, report, data_dir=None, count=CHECKED):
    """Clean and PGD-20 accuracy on the first test images, with the report's radius and seed 0."""
    import soar_tf

    data = soar_tf.datasets.load(report["dataset"], data_dir=data_dir, splits=("test",))
    examples = data["test"].take(count)
    epsilon = next(a["epsilon"] for a in report["attacks"] if a["name"] == "pgd20")
    attack = soar_tf.attacks.get("pgd20", epsilon=epsilon)
    found = soar_tf.evaluate(network, examples.float_images(), examples.labels, [attack])
    return {
        "n": found.n,
        "epsilon": epsilon,
        "clean": found.clean_accuracy,
        "pgd20": found.attacks[0].robust_accuracy,
    }


def limits(card):
    """What the figures do not say, in plain sentences."""
    from soar_tf.formatting import percent
    from soar_tf.reports.pages import threats

    report, config = card["report"], card["config"]
    low, high = map(percent, report["worst_case_interval"])
    found = []
    if report["reliability"] == "unreliable":
        failed = [c["name"] for c in report["masking"]["checks"] if c["verdict"] == "fail"]
        found.append(
            f"Unreliable: it fails the masking checks {', '.join(failed)}, so its gradients "
            "mislead attacks. Accuracies under single attacks, PGD-20 above all, must not be "
            "quoted as robustness."
        )
    if config["method"] == "standard":
        found.append("Trained without a defence: a baseline, and a source of transfer attacks.")
    found += [
        f"Measured against {threats(report)} alone: nothing is said of other norms, larger radii, "
        "patches, corruptions or other data.",
        "Robust accuracy is an upper bound, since a stronger attack may lower it, and "
        f"{report['n']} images leave the worst case between {low} and {high}.",
        f"One seed, {_epochs(card)}: other seeds and longer schedules give other figures.",
        "For research and teaching, not for use where a wrong answer does harm.",
    ]
    if "re-encode" in card["data"]["provenance"]:
        found.append(
            "The images are a JPEG re-encoding, in training and evaluation: figures beside those "
            "on the original CIFAR-10 must say so."
        )
    return found


def _epochs(card):
    counts = {}
    for row in card["training"]:
        counts[row["phase"]] = counts.get(row["phase"], 0) + 1
    text = " and ".join(f"{count} epochs of {phase}" for phase, count in counts.items())
    return text + (f" from {card['started_from']}" if card["started_from"] else "")


def write(card, network, place):
    """Writes the entry's folder, whole or not at all, after checking that the files agree."""
    from soar_tf.models import saved_model

    temporary = files.unfinished(place)
    try:
        temporary.mkdir()
        network.save(temporary / zoo.NETWORK)  # never compiled here: no optimizer's state
        saved_model.export(network, temporary / zoo.SAVED_MODEL)
        check_equal(temporary, network.input_shape[1:])
        card["files"] = {part: size_of(temporary / part) for part in (zoo.NETWORK, zoo.SAVED_MODEL)}
        files.write_json(temporary / zoo.CARD, card)
        others = sum(size for name, size in sizes().items() if name != place.name)
        if others + size_of(temporary) > zoo.MAX_BYTES:
            raise InputError(
                f"`name` {place.name} would bring the zoo to "
                f"{(others + size_of(temporary)) / 1e6:.1f} MB; {zoo.MAX_BYTES / 1e6:.0f} are "
                "allowed."
            )
        files.remove(place)
        files.sync_tree(temporary)
        os.replace(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_equal(place, image_shape):
    """Refuses an entry whose `.keras` file and SavedModel give other logits."""
    import numpy as np

    x = np.linspace(0, 1, 4 * int(np.prod(image_shape)), dtype="float32")
    x = (x * 997 % 1).reshape(4, *image_shape)
    first, second = (
        loading.load(place / part).logits_fn(x).numpy() for part in (zoo.NETWORK, zoo.SAVED_MODEL)
    )
    if np.abs(first - second).max() > _SAME * np.ptp(first):
        raise InputError(f"{place}: the SavedModel and the .keras file give other logits.")


def size_of(path):
    """Bytes of a file, or of all files in a folder."""
    path = Path(path)
    found = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in found)


def sizes():
    """Bytes of every entry."""
    return {name: size_of(zoo.path(name)) for name in zoo.names()}


def markdown():
    """What the zoo's Markdown files must hold: `{path: text}`."""
    from soar_tf.reports import cards

    found = {name: zoo.card(name) for name in zoo.names()}
    texts = {zoo.path(name) / zoo.README: cards.card(card) for name, card in found.items()}
    return {**texts, zoo.folder() / zoo.README: cards.index(found)}


def refresh_markdown():
    """Writes the Markdown of every card, and the index."""
    for path, text in markdown().items():
        files.write_text(path, text)


if __name__ == "__main__":
    main()

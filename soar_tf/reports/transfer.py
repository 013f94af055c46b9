"""`soar-tf transfer`: the source x target matrix from stored models, and its files."""

import math
import sys
from pathlib import Path

from soar_tf import evaluation, files, plots
from soar_tf.attacks import get as get_attack
from soar_tf.errors import InputError
from soar_tf.formatting import percent, threat_text
from soar_tf.reports import pages
from soar_tf.reports.output import check_folder
from soar_tf.reports.summary import check_attacks
from soar_tf.runs import models
from soar_tf.runs.provenance import environment

NOTE = (
    "Transfer accuracy: share of all images that the target classifies correctly, both clean and "
    "as attacked through the source."
)
MASKED = (
    "Transfer through {} breaks more of {} than the white-box attack: its gradients mislead, and "
    "its white-box figure is unreliable."
)
JSON, MARKDOWN, PICTURE = "transfer.json", "transfer.md", "transfer.png"


def transfer_models(sources, targets, config, *, progress=None):
    """Attacks target models through source models and, if asked to, writes the report.

    Args:
        sources: Run directories, `.keras` files, SavedModel folders or `zoo:NAME` to craft against.
        targets: The same, to attack; `.tflite` and `.onnx` files, too, which have no white-box
            accuracy.
        config: A `soar_tf.runs.evaluation_config.TransferConfig`; norm and radius are the targets'
            where it has none, and its `pixel_range` is that of files, not of runs.
        progress: See `soar_tf.evaluation.transfer_matrix`.

    Returns:
        The report, a JSON-serializable dictionary.

    Raises:
        InputError: If a model, the data, the attack or `output` cannot be used.
    """
    check_attacks((config.attack,), config.norm, config.epsilon)
    if config.output is not None:
        check_folder(config.output, "output", (JSON, MARKDOWN, PICTURE))
    names = dict.fromkeys(str(path) for path in (*sources, *targets))
    how = {"trust": config.trust, "pixel_range": config.pixel_range}
    loaded = {name: models.load(name, **how) for name in names}
    dataset = config.dataset or _common_dataset(loaded.values())
    judged = [loaded[str(path)] for path in targets]
    threat = models.threat_model(judged, dataset, config.norm, config.epsilon)
    examples = models.examples_for(
        loaded,
        dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        split=config.split,
        limit=config.limit,
        reading=config.reading,
        say=progress is not None,
    )
    networks = {name: model.network or model.logits_fn for name, model in loaded.items()}
    built = get_attack(config.attack, norm=threat.norm, epsilon=threat.epsilon)
    matrix = evaluation.transfer_matrix(
        {str(path): networks[str(path)] for path in sources},
        {str(path): networks[str(path)] for path in targets},
        examples.pixels(),
        examples.labels,
        built,
        seed=config.seed,
        batch_size=config.batch_size,
        progress=progress,
    )
    report = {"dataset": dataset, "split": config.split, **matrix.to_dict()}
    report["attack"] = config.attack
    report["config"] = built.get_config()
    report["note"] = " ".join([NOTE, *(MASKED.format(*pair) for pair in matrix.masked())])
    report["environment"] = environment()
    if config.output is not None:
        _write(Path(config.output), report)
    return report


def table(report):
    """The report as rows of shares: target, clean, white-box, then one column a source.

    Args:
        report: What `transfer_models` returns.

    Returns:
        `(header, rows)`; a row is the target's name and its shares.
    """
    header = ["target", "clean", "white-box", *(f"from {name}" for name in report["sources"])]
    rows = [
        [
            name,
            report["clean_accuracy"][name],
            report["white_box"][name],
            *(report["accuracy"][source][name] for source in report["sources"]),
        ]
        for name in report["targets"]
    ]
    return header, rows


def _common_dataset(loaded):
    known = {model.config["dataset"] for model in loaded if "dataset" in model.config}
    if len(known) == 1:
        return known.pop()
    if not known:
        raise InputError("`dataset` is needed: only runs and zoo networks know their own.")
    raise InputError(f"`dataset` is needed: the models are of {' and '.join(sorted(known))}.")


def _write(folder, report):
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / JSON, report)
    files.write_text(folder / MARKDOWN, _markdown(report))
    if not plots.available():
        print(
            f"matplotlib is not installed, so there is no {PICTURE}; run: pip install "
            "'soar-tf[plots]'.",
            file=sys.stderr,
        )
        return
    plots.save(heat_map(report), folder / PICTURE)


def heat_map(report):
    """The report's matrix as a figure: targets down, white-box and sources across."""
    header, rows = table(report)
    title = f"accuracy in %, {report['attack']}, {report['n']} images"
    shares = [[math.nan if share is None else share for share in row[2:]] for row in rows]
    return plots.transfer_heat_map([row[0] for row in rows], header[2:], shares, title=title)


def _cell(text):
    return pages.plain(text).replace("|", "\\|")


def _markdown(report):
    header, rows = table(report)
    lines = [
        f"# Transfer of {pages.plain(report['attack'])}",
        "",
        "| " + " | ".join(map(_cell, header)) + " |",
        "|" + " --- |" + " ---: |" * (len(header) - 1),
    ]
    for name, *shares in rows:
        lines.append("| " + " | ".join([_cell(name), *map(percent, shares)]) + " |")
    radius = (
        "" if report["epsilon"] is None else f", {threat_text(report['norm'], report['epsilon'])}"
    )
    lines += [
        "",
        f"{report['n']} images of {pages.plain(report['dataset'])} ({report['split']}){radius}, "
        f"seed {report['seed']}.",
        "",
        pages.plain(report["note"]),
        "",
    ]
    return "\n".join(lines)

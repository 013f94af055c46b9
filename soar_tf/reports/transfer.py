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


def transfer_models(
    sources,
    targets,
    *,
    dataset,
    attack="pgd20",
    data_dir=None,
    image_size=None,
    split="test",
    limit=None,
    norm=None,
    epsilon=None,
    batch_size=256,
    seed=0,
    output=None,
    pixel_range=None,
    trust=False,
    progress=None,
    reading=None,
):
    """Attacks target models through source models and, if asked to, writes the report.

    Args:
        sources: Run directories, `.keras` files, SavedModel folders or `zoo:NAME` to craft against.
        targets: The same, to attack; `.tflite` and `.onnx` files, too, which have no white-box
            accuracy.
        dataset: Data set's name; `None` takes that of the runs and zoo networks, if it is one.
        attack: The attack as a string.
        data_dir, image_size, split, limit, norm, epsilon, batch_size, seed: As for
            `soar_tf.reports.evaluation.evaluate_model`; norm and radius are the targets'.
        output: Folder for transfer.json, transfer.md and transfer.png, or `None`.
        pixel_range: The pixel value that stands for white where a file's network takes others than
            [0, 1], such as 255; it holds for all files, and not for runs and zoo networks.
        trust: Whether SavedModels may hold any operation.
        progress: See `soar_tf.evaluation.transfer_matrix`.
        reading: How images are read, see `soar_tf.runs.models.dataset_for`.

    Returns:
        The report, a JSON-serializable dictionary.

    Raises:
        InputError: If a model, the data, the attack or `output` cannot be used.
    """
    check_attacks((attack,), norm, epsilon)
    if output is not None:
        check_folder(output, "output", (JSON, MARKDOWN, PICTURE))
    loaded = {str(path): None for path in (*sources, *targets)}
    loaded = {name: models.load(name, trust=trust, pixel_range=pixel_range) for name in loaded}
    dataset = dataset or _common_dataset(loaded.values())
    judged = [loaded[str(path)] for path in targets]
    threat = models.threat_model(judged, dataset, norm, epsilon)
    examples = models.examples_for(
        loaded,
        dataset,
        data_dir=data_dir,
        image_size=image_size,
        split=split,
        limit=limit,
        reading=reading,
        say=progress is not None,
    )
    networks = {name: model.network or model.logits_fn for name, model in loaded.items()}
    built = get_attack(attack, norm=threat.norm, epsilon=threat.epsilon)
    matrix = evaluation.transfer_matrix(
        {str(path): networks[str(path)] for path in sources},
        {str(path): networks[str(path)] for path in targets},
        examples.pixels(),
        examples.labels,
        built,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    report = {"dataset": dataset, "split": split, **matrix.to_dict(), "attack": attack}
    report["config"] = built.get_config()
    report["note"] = " ".join([NOTE, *(MASKED.format(*pair) for pair in matrix.masked())])
    report["environment"] = environment()
    if output is not None:
        _write(Path(output), report)
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

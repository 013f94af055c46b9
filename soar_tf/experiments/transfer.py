"""`soar-tf transfer`: the source x target matrix from stored models, and its files."""

import sys
import tempfile
from pathlib import Path

from soar_tf import attacks as attacks_room
from soar_tf import config as config_room
from soar_tf import evaluation, files
from soar_tf.errors import InputError
from soar_tf.experiments import models
from soar_tf.experiments.manifest import environment

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
    epsilon=None,
    batch_size=256,
    seed=0,
    output=None,
    progress=None,
):
    """Attacks target models through source models and, if asked to, writes the report.

    Args:
        sources: Run directories, `.keras` files or SavedModel folders to craft against.
        targets: The same, to attack.
        dataset: Data set's name; `None` takes the run directories' own, if it is one.
        attack: The attack as a string.
        data_dir, image_size, split, limit, epsilon, batch_size, seed: As for
            `soar_tf.experiments.summary.evaluate_model`.
        output: Folder for transfer.json, transfer.md and transfer.png, or `None`.
        progress: See `soar_tf.evaluation.transfer_matrix`.

    Returns:
        The report, a JSON-serializable dictionary.

    Raises:
        InputError: If a model, the data, the attack or `output` cannot be used.
    """
    attacks_room.get(attack, epsilon=8 / 255 if epsilon is None else epsilon)
    _check_output(output)
    loaded = {str(path): None for path in (*sources, *targets)}
    loaded = {name: models.load(name) for name in loaded}
    dataset = dataset or _common_dataset(loaded.values())
    epsilon = config_room.recipe(dataset)["epsilon"] if epsilon is None else epsilon
    examples = models.examples_for(
        loaded, dataset, data_dir=data_dir, image_size=image_size, split=split, limit=limit
    )
    networks = {name: model.network or model.logits_fn for name, model in loaded.items()}
    built = attacks_room.get(attack, epsilon=epsilon)
    matrix = evaluation.transfer_matrix(
        {str(path): networks[str(path)] for path in sources},
        {str(path): networks[str(path)] for path in targets},
        examples.float_images(),
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
        [name, report["clean_accuracy"][name], report["white_box"][name],
         *(report["accuracy"][source][name] for source in report["sources"])]
        for name in report["targets"]
    ]  # fmt: skip
    return header, rows


def _common_dataset(loaded):
    known = {model.config["dataset"] for model in loaded if "dataset" in model.config}
    if len(known) == 1:
        return known.pop()
    if not known:
        raise InputError("`dataset` is needed: only a run directory knows its own.")
    raise InputError(f"`dataset` is needed: the runs are of {' and '.join(sorted(known))}.")


def _check_output(output):
    """Refuses a folder that cannot be written before hours of attacks, not after."""
    if output is None:
        return
    place = Path(output).absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InputError(f"`output` {output} must be a folder. Received: the file {place}.")
    for name in (JSON, MARKDOWN, PICTURE):
        if (Path(output) / name).is_dir():
            raise InputError(f"`output` {output} holds a folder named {name}.")
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=files.UNFINISHED):
            pass
    except OSError as error:
        raise InputError(f"`output` {output} cannot be written: {error.strerror}.") from None


def _write(folder, report):
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / JSON, report)
    files.write_text(folder / MARKDOWN, _markdown(report))
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print(
            f"matplotlib is not installed, so there is no {PICTURE}; run: pip install "
            "'soar-tf[plots]'.",
            file=sys.stderr,
        )
        return
    with files.replacing(folder / PICTURE) as temporary:
        _heat_map(Figure, report).savefig(temporary, dpi=150)


def _markdown(report):
    header, rows = table(report)
    lines = [
        f"# Transfer of {report['attack']}",
        "",
        "| " + " | ".join(header) + " |",
        "|" + " --- |" + " ---: |" * (len(header) - 1),
    ]
    for name, *shares in rows:
        lines.append(
            "| " + " | ".join([name, *(f"{100 * share:.1f} %" for share in shares)]) + " |"
        )
    radius = (
        "" if report["epsilon"] is None else f", {report['norm']} radius {report['epsilon']:.4g}"
    )
    lines += [
        "",
        f"{report['n']} images of {report['dataset']} ({report['split']}){radius}, "
        f"seed {report['seed']}.",
        "",
        report["note"],
        "",
    ]
    return "\n".join(lines)


def _heat_map(figure_class, report):
    """The matrix as a picture: targets down, white-box and sources across."""
    header, rows = table(report)
    columns, names = header[2:], [row[0] for row in rows]
    shares = [row[2:] for row in rows]
    figure = figure_class(figsize=(3 + 1.2 * len(columns), 2.5 + 0.6 * len(names)))
    axes = figure.subplots()
    axes.imshow(shares, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            color = "white" if share < 0.5 else "black"
            axes.text(j, i, f"{100 * share:.1f}", ha="center", va="center", color=color)
    axes.set_title(f"accuracy in %, {report['attack']}, {report['n']} images")
    figure.tight_layout()
    return figure

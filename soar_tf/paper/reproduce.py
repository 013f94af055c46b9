"""`soar-tf reproduce`: one entry, from the request to the files."""

import sys
from pathlib import Path

from soar_tf import paper
from soar_tf.errors import InputError
from soar_tf.paper import recipes, training_hours
from soar_tf.paper.report import names, write
from soar_tf.paper.study import Request, Study, check_models
from soar_tf.reports.output import check_folder
from soar_tf.runs import intervals
from soar_tf.runs.provenance import environment
from soar_tf.validation import PRECISIONS, check_choice, check_integer


def reproduce(
    name,
    *,
    output,
    budget="smoke",
    dataset=None,
    data_dir=None,
    seeds=None,
    precision="float32",
    checkpoint_every=None,
    models=None,
    verbose=2,
    progress=None,
):
    """Reproduces a table, a figure or a section of the paper, and writes the result.

    An interrupted call resumes when repeated: trained networks and measurements are kept in
    `output`, and shared by all entries that are written there.

    Args:
        name: The entry, see `soar_tf.paper.ENTRIES`.
        output: Folder for NAME.json, NAME.csv, NAME.md and NAME.png.
        budget: `"smoke"` (seconds; the results are meaningless), `"short"` (hours) or `"paper"`
            (the paper's schedules).
        dataset: `"cifar10"` or `"digits"`; `None` for the entry's default.
        data_dir: Folder of tensorflow-datasets, or `None`.
        seeds: Number of seeds; `None` for the budget's.
        precision: Compute precision of training: `"float32"`, `"mixed_bfloat16"` or
            `"mixed_float16"`.
        checkpoint_every: Interval of checkpoints within epochs: a number of steps or a time such as
            `"10m"`; `None` for checkpoints after each epoch only.
        models: Folder of networks to use instead of training them, or `None`.
        verbose: Keras's verbosity during training.
        progress: Called with a `soar_tf.evaluation.Progress` while attacks run, or `None`.

    Returns:
        `(report, paths)`: the `Report` and the files written.

    Raises:
        InputError: If anything in the request is invalid; then nothing is written.
        RunError: If training fails.
    """
    entry = paper.load(name)
    check_choice(budget, "budget", recipes.BUDGETS)
    if entry.DATASET is None and dataset is not None:
        raise InputError(f"`dataset` is not used by {name}, which generates its data.")
    dataset = dataset or entry.DATASET
    if dataset is not None:
        check_choice(dataset, "dataset", getattr(entry, "DATASETS", recipes.DATASETS))
    seeds = recipes.LIMITS[budget].seeds if seeds is None else seeds
    if checkpoint_every is not None:
        intervals.parse(checkpoint_every)
    request = Request(
        name,
        budget,
        dataset,
        data_dir,
        check_integer(seeds, "seeds", minimum=1),
        Path(output),
        None if models is None else Path(models),
        verbose,
        progress,
        check_choice(precision, "precision", PRECISIONS),
        checkpoint_every,
    )
    if models is not None:
        check_models(models)
    check_folder(output, "output", names(name))
    study = Study(request, len(recipes.with_starts(entry.NETWORKS)) * request.seeds)
    if dataset is not None:
        study.dataset()
    _print_expected_hours(study, entry)
    report = entry.report(study)
    request.output.mkdir(parents=True, exist_ok=True)
    manifest = {
        "entry": name,
        "budget": budget,
        "dataset": dataset and {"name": dataset, "provenance": study.dataset().provenance},
        "seeds": list(study.seeds),
        "networks": study.networks_used(),
        **environment(),
    }
    paths = write(report, request.output, name, _note(study), manifest)
    return report, paths


def _print_expected_hours(study, entry):
    """Prints how long training is expected to take, before it starts."""
    request = study.request
    if request.dataset is None:
        return
    names = recipes.with_starts(entry.NETWORKS)
    missing = [name for name in names if study.given_path(name, 0) is None]
    expected = training_hours.expected_hours(
        missing, budget=request.budget, dataset=request.dataset, seeds=request.seeds
    )
    for device, (hours, unknown) in expected.items():
        more = f", plus {', '.join(unknown)}, not measured" if unknown else ""
        text = f"Training takes about {hours:.1f} hours on {device} in float32{more}."
        print(text, file=sys.stderr)
    if expected:
        print("GPUs were not measured. Finished parts are not repeated.", file=sys.stderr)


def _note(study):
    """How the result was obtained: one paragraph on the run and one on the data."""
    request = study.request
    parts = [f"Budget {request.budget}, {request.seeds} seed{'s' if request.seeds > 1 else ''}."]
    if request.precision != "float32":
        parts.append(f"Trained in {request.precision}, measured in float32.")
    if request.budget == "smoke":
        parts.append("A smoke test: the results are meaningless.")
    if schedule := _schedule(study):
        parts.append(f"Epochs: {schedule}.")
    text = " ".join(parts)
    if request.dataset is None:
        return text
    return f"{text}\n\nData: {study.dataset().provenance}"


def _schedule(study):
    """How long each network was trained, and which network it started from."""
    listed = {}
    for network in study.networks_used():
        recipe = recipes.RECIPES[network["name"]]
        if "epochs" not in network["config"]:  # not a run directory
            continue
        start = recipe.starts_from
        text = f"{recipe.label} {network['config']['epochs']}"
        listed[network["name"]] = f"{text} from {recipes.RECIPES[start].label}" if start else text
    return ", ".join(listed.values())

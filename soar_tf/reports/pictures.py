"""`soar-tf plot`: pictures of what run directories and reports hold."""

import csv
import io
import zipfile
from pathlib import Path

from soar_tf import files, plots
from soar_tf.errors import InputError
from soar_tf.formatting import radius_text
from soar_tf.models import zoo
from soar_tf.models.untrusted.archives import open_zip, read_array
from soar_tf.plots.figures import new_figure
from soar_tf.reports import transfer as transfer_experiment
from soar_tf.reports.output import ADVERSARIAL, JSON, check_folder
from soar_tf.reports.report_plots import drawn_curve
from soar_tf.reports.stored import MAX_BYTES
from soar_tf.runs import run_directory

_GRID = 8  # images in a grid
_SETTING = "soar_tf.reports.stored.MAX_BYTES"


def plot(sources, output, *, surface_images=None, epsilon=None, left_out=None):
    """Draws everything that the sources hold into a folder.

    Args:
        sources: Run directories, `.csv` logs, `report.json` and `transfer.json` files, or the
            folders that these lie in, or `zoo:NAME`.
        output: The folder; it is made if it does not exist.
        surface_images: Number of images of the loss surface of each run; `None` draws none.
        epsilon: Radius to mark in it; `None` takes the data set's usual one.
        left_out: A list that takes the messages of sources that cannot be drawn, as long as others
            can; `None`: the first one ends all.

    Returns:
        The paths of the pictures.

    Raises:
        InputError: If a source holds nothing to draw or cannot be read, if `output` cannot be
            written, or if matplotlib is not installed.
    """
    new_figure(1, 1)  # refuses a missing matplotlib
    check_folder(output, "output")
    found, refused = [], []
    for source in sources:
        try:
            found.append((_name(source, sources), *_read(zoo.located(source))))
        except InputError as error:
            refused.append(error)
            if left_out is None:
                raise
    if not found:
        raise refused[0]
    if left_out is not None:
        left_out += [str(error) for error in refused]
    drawn = list(_figures(found))
    if surface_images is not None:
        drawn += _surfaces(found, surface_images, epsilon)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name, _ in drawn]
    for path, (_, figure) in zip(paths, drawn, strict=True):
        plots.save(figure, path)
    return paths


def _figures(found):
    """Yields `(file name, Figure)` of everything but loss surfaces."""
    logs = {name: value for name, kind, value, _ in found if kind == "log"}
    if logs:
        yield "training-curves", plots.training_curves(logs)
    curves = {
        name: drawn_curve(value)
        for name, kind, value, _ in found
        if kind == "report" and "curve" in value
    }
    if curves:
        yield "accuracy-epsilon", plots.accuracy_epsilon(curves)
    for name, kind, value, path in found:
        if kind == "transfer":
            yield f"transfer-{_slug(name)}", transfer_experiment.heat_map(value)
        examples = path.parent / ADVERSARIAL
        if kind == "report" and examples.is_file():
            yield f"adversarial-examples-{_slug(name)}", _grid(examples)


def _read(path):
    """What a source holds: `(kind, value, file)`."""
    if not path.exists():
        raise InputError(f"`run` {path} does not exist.")
    if zoo.is_entry(path):
        return "log", zoo.read_card(path).get("training", []), path / zoo.CARD
    if path.is_dir():
        names = (run_directory.LOG, JSON, transfer_experiment.JSON)
        present = [path / name for name in names if (path / name).is_file()]
        if not present:
            raise InputError(f"`run` {path} holds none of {', '.join(names)}.")
        path = present[0]
    if path.suffix == ".csv":
        return "log", _rows(path), path
    value = files.read_json(path)
    keys = set(value)
    if {"white_box", "sources", "targets", "accuracy"} <= keys:
        return "transfer", value, path
    if {"worst_case_accuracy", "attacks", "n"} <= keys:
        if "curve" not in value and not (path.parent / ADVERSARIAL).is_file():
            raise InputError(
                f"`run` {path} holds no curve and no adversarial images to draw; evaluate with "
                "--curve or --save-adversarial."
            )
        return "report", value, path
    raise InputError(f"`run` {path} is no report of soar-tf evaluate or soar-tf transfer.")


def _rows(path):
    """A CSV log as dictionaries of numbers (the phase is text); empty cells are left out."""
    try:
        text = files.read_bytes(path, f"`run` {path}").decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        numbers = [
            {k: v if k == "phase" else float(v) for k, v in row.items() if k and v} for row in rows
        ]
    except InputError:
        raise
    except (OSError, ValueError, TypeError, csv.Error):
        raise InputError(f"`run` {path} is no log of a training run.") from None
    if not any("loss" in row for row in numbers):
        raise InputError(f"`run` {path} is no log of a training run: it has no column loss.")
    return numbers


def _grid(path):
    try:
        with open_zip(path, f"`run` {path}", max_bytes=MAX_BYTES, setting=_SETTING) as archive:
            x, x_adv, labels, predictions = (
                read_array(archive, array, path, rows=_GRID)
                for array in ("x", "x_adv", "label", "adversarial_prediction")
            )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise InputError(f"`run` {path} cannot be read as adversarial examples.") from None
    if len(x) == 0 or x.shape[-1] not in (1, 3):
        raise InputError(f"`run` {path} holds no pictures of 1 or 3 channels.")
    captions = [(f"class {a}", f"class {b}") for a, b in zip(labels, predictions, strict=True)]
    return plots.adversarial_examples(x, x_adv, captions[: len(x)])


def _surfaces(found, count, epsilon):
    """`(file name, Figure)` of the loss around images, for every run."""
    from soar_tf import evaluation
    from soar_tf.datasets import defaults
    from soar_tf.runs import models

    drawn, along = [], {}
    for name, kind, _, path in found:
        if kind != "log" or not (path.name == zoo.CARD or run_directory.is_run(path.parent)):
            continue
        model = models.load(path.parent)
        dataset = model.config["dataset"]
        radius = defaults.recipe(dataset)["epsilon"] if epsilon is None else epsilon
        examples = models.examples_for(
            {name: model},
            dataset,
            data_dir=None,
            image_size=model.config.get("image_size"),
            split="test",
            limit=count,
        )
        surface = evaluation.loss_surface(
            model.network, examples.float_images(), examples.labels, reach=2 * radius
        )
        figure = plots.loss_surface(
            surface.distances, surface.distances, surface.losses, epsilon=radius
        )
        drawn.append((f"loss-surface-{_slug(name)}", figure))
        along.setdefault((dataset, radius), {})[name] = surface
    if not along:
        raise InputError("`--loss-surface` needs a finished run directory or a zoo network.")
    for number, ((_, radius), surfaces) in enumerate(along.items()):
        losses = {name: surface.along for name, surface in surfaces.items()}
        figure = plots.loss_direction(
            next(iter(surfaces.values())).distances,
            losses,
            epsilon=radius,
            direction="the signs of the gradient",
        )
        tail = f"-{radius_text(radius).replace('/', '-')}" if number else ""
        drawn.append((f"loss-direction{tail}", figure))
    return drawn


def _name(source, sources):
    """The source's last name, or its path where several share one."""
    path = Path(source)
    short = (path.parent if path.is_file() else path).resolve().name
    same = [s for s in sources if Path(s).resolve().name == path.resolve().name]
    return str(source) if len(same) > 1 else short


def _slug(name):
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name).strip("-")

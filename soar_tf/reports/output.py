"""Where `soar-tf evaluate` writes: a folder of reports, one JSON file, or nothing."""

import contextlib
import itertools
import os
import tempfile
from pathlib import Path

import numpy as np

from soar_tf import files, plots, reports
from soar_tf.errors import InputError
from soar_tf.formatting import radius_text
from soar_tf.reports.examples import Images

JSON, MARKDOWN, HTML = "report.json", "report.md", "report.html"
TABLE, CSV = "examples.npz", "examples.csv"
ADVERSARIAL, PICTURE, STATE = "adversarial.npz", "accuracy-epsilon.png", "evaluation.state"
SOURCE_STATE = f"source-{STATE}"  # see `soar_tf.reports.shipped`
SHARD = "shard.npz"
_NAMES = (
    *(JSON, MARKDOWN, HTML, TABLE, CSV, ADVERSARIAL, PICTURE, STATE, SOURCE_STATE),
    SHARD,
)
GALLERY = 12  # images that broke, in the page


class ReportPlace:
    """The place of a report, checked before hours of attacks, not after.

    Args:
        output: A folder, which is made if it does not exist; or a path that ends in `.json`, for
            the JSON report alone; or `None`.
        state: The state file; `None` takes `evaluation.state` in the folder, if there is one.

    Attributes:
        folder: The folder as a `pathlib.Path`, or `None`.
        state: The state file's path, or `None`.

    Raises:
        InputError: If it cannot be written, or holds another evaluation's report.
    """

    def __init__(self, output, state=None):
        path = None if output is None else Path(output)
        self.file = path if path is not None and path.suffix == ".json" else None
        self.folder = None if self.file else path
        self.state = None if state is None else Path(state)
        if self.file is not None:
            if self.state is not None and self.state.resolve() == self.file.resolve():
                raise InputError(f"`state` must be another file than `output`. Received: {state}.")
            _check_file(self.file, "output")
        if self.state is not None:
            _check_file(self.state, "state")
        if self.folder is not None:
            check_folder(self.folder, "output", _NAMES)
            if self.state is None:
                if (self.folder / JSON).exists() and not (self.folder / STATE).exists():
                    raise InputError(
                        f"`output` {output} holds a report without its {STATE}, so it cannot go "
                        "on; use another folder."
                    )
                self.state = self.folder / STATE

    @contextlib.contextmanager
    def made(self):
        """Context in which the folder exists; bad input found in it leaves no empty one behind."""
        new = self.folder is not None and not self.folder.exists()
        if new:
            self.folder.mkdir(parents=True)
        try:
            yield
        except InputError:
            if new:
                self.folder.rmdir()
            raise

    def write(self, report, result, images, class_names, *, everything, curve=None):
        """Writes the report.

        Args:
            report: The report as a dictionary.
            result: The `soar_tf.evaluation.Evaluation`.
            images: Callable that gives the images at some positions of the evaluated set, float32
                `[k, H, W, C]`.
            class_names: Names of the classes, or `None`.
            everything: Whether to write all adversarial images.
            curve: The curve's `AccuracyCurve` and `MinimumNorms`; or `None`.
        """
        if self.file is not None:
            files.write_json(self.file, report)
        if self.folder is None:
            return
        columns = result.examples.columns()
        if curve is not None:
            distances = curve[1]
            found = distances.distances
            columns[f"distance_{distances.norm}"] = np.where(np.isfinite(found), found, np.nan)
        reports.write_npz(self.folder / TABLE, columns)
        reports.write_csv(self.folder / CSV, columns)
        if everything:
            reports.write_npz(self.folder / ADVERSARIAL, _adversarial(result, images))
        if result.shard is not None:
            reports.write_npz(self.folder / SHARD, _for_merging(result, images, curve))
        pictures = []
        for name, (_, figure) in reports.figures(report).items():
            pictures.append(f"{name}.png")
            plots.save(figure, self.folder / pictures[-1])
        gallery = _gallery(result, images, class_names)
        files.write_text(self.folder / MARKDOWN, reports.markdown(report, pictures))
        files.write_text(self.folder / HTML, reports.html(report, gallery))
        files.write_json(self.folder / JSON, report)  # last: whoever waits for it finds the rest


def check_folder(path, argument, names=()):
    """Refuses a folder that cannot be written before hours of work, not after; writes nothing.

    Args:
        path: The folder, which need not exist.
        argument: The argument's name, for the error.
        names: Names of the files that are to be written there.

    Raises:
        InputError: If it cannot be made or written, or holds folders of these names.
    """
    place = files.check_path(path, argument).absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InputError(f"`{argument}` {path} must be a folder. Received: the file {place}.")
    for name in names:
        if (Path(path) / name).is_dir():
            raise InputError(f"`{argument}` {path} holds a folder named {name}.")
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=files.UNFINISHED):
            pass
    except OSError as error:
        raise InputError(f"`{argument}` {path} cannot be written: {error.strerror}.") from None


def _check_file(path, argument):
    files.check_path(path, argument)
    parent = path.absolute().parent
    if not parent.is_dir():
        raise InputError(f"`{argument}` {path}: the folder {path.parent} does not exist.")
    if path.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"`{argument}` {path} cannot be written.")


def _adversarial(result, images):
    """Every example that broke: position, label, clean and adversarial image."""
    positions, clean, adversarial = _kept(result, images)
    rows = result.examples.rows(positions)
    return {
        "index": positions,
        "label": result.examples.label[rows],
        "x": clean,
        "x_adv": adversarial,
        "adversarial_prediction": result.examples.adversarial_prediction[rows],
        "broken_by": result.examples.broken_by[rows],
    }


def _kept(result, images):
    """Positions, clean and adversarial images of the examples whose images were kept."""
    positions = np.array(sorted(result.kept), np.int64)
    shape = images(positions[:0]).shape[1:]

    def adversarial(rows):
        return np.stack([result.kept[row] for row in rows.tolist()])

    return positions, Images(positions, shape, images), Images(positions, shape, adversarial)


def _for_merging(result, images, curve):
    """What a merged report needs of a shard beyond the other files."""
    positions, clean, adversarial = _kept(result, images)
    arrays = {
        "robust": np.stack([attack.robust for attack in result.attacks]),
        "kept": positions,
        "kept_clean": clean,
        "kept_adversarial": adversarial,
    }
    if curve is not None:
        arrays |= {"broken_at": curve[0].broken_at, "distances": curve[1].distances}
    return arrays


def _gallery(result, images, class_names):
    """The images that broke for the page, see `soar_tf.reports.html`."""
    found = result.examples

    def name(label):
        return class_names[label] if class_names else f"class {label}"

    def entry(position, image):
        row = int(found.rows(position))
        return {
            "index": position,
            "image": images([position])[0],
            "adversarial": image,
            "clean": name(found.label[row]),
            "predicted": name(found.adversarial_prediction[row]),
            "broken_by": str(found.broken_by[row]),
            "linf": radius_text(round(float(found.linf[row]), 6)),
            "l2": f"{found.l2[row]:.3g}",
        }

    shown = sorted(itertools.islice(result.kept, GALLERY))
    return [entry(position, result.kept[position]) for position in shown]

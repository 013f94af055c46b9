"""`soar-tf compare`: two reports of the same images as one table."""

import zipfile
from pathlib import Path

import numpy as np

from soar_tf import files
from soar_tf.errors import InputError
from soar_tf.evaluation.comparison import paired
from soar_tf.formatting import percent
from soar_tf.models.untrusted.archives import open_zip, read_array
from soar_tf.reports.output import JSON as REPORT
from soar_tf.reports.output import TABLE, check_folder
from soar_tf.reports.pages import render, threats
from soar_tf.reports.summary import FEW_IMAGES

JSON, MARKDOWN = "comparison.json", "comparison.md"
_MAX_BYTES = 2**30  # of a table with one row per image
_SETTING = "soar_tf.reports.comparison._MAX_BYTES"
_LISTED = 20  # positions of images in the text


def compare(first, second, output=None):
    """Compares two evaluations on the same images under the same threat models.

    Args:
        first: Folder of the first report, or its `report.json` with `examples.npz` beside it.
        second: That of the second report.
        output: Folder for `comparison.json` and `comparison.md`, or `None`.

    Returns:
        The comparison as a JSON-serializable dictionary: `soar_tf.evaluation.Comparison.to_dict`,
        and `models`, `reports`, `dataset`, `split`, `threats` and `note`.

    Raises:
        InputError: If a report cannot be read, if images or threat models differ, or if `output`
            cannot be written.
    """
    if output is not None:
        check_folder(output, "output", (JSON, MARKDOWN))
    one, two = _load(first), _load(second)
    _check_same(first, one, second, two)
    (report, table), (other, other_table) = one, two
    found = paired(table["broken_by"] == "", other_table["broken_by"] == "", table["index"])
    comparison = {
        "models": [report["model"], other["model"]],
        "reports": [str(first), str(second)],
        "dataset": report["dataset"],
        "split": report["split"],
        "threats": threats(report),
        **found.to_dict(),
    }
    comparison["note"] = _note(comparison, report, other)
    if output is not None:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        text = render("comparison.md.j2", found=comparison, rows=rows(comparison), listed=listed)
        files.write_text(folder / MARKDOWN, text)
        files.write_json(folder / JSON, comparison)
    return comparison


def rows(comparison):
    """The comparison as pairs of texts: what, and how much."""
    low, high = comparison["interval"]
    first, second = comparison["accuracy"]
    return [
        ("worst case of the first", percent(first)),
        ("worst case of the second", percent(second)),
        ("difference", f"{100 * comparison['difference']:+.1f} points"),
        ("95 % interval", f"{100 * low:+.1f} to {100 * high:+.1f} points"),
        ("McNemar's exact test", f"p = {comparison['p_value']:.2g}"),
        ("both withstand", str(comparison["both"])),
        ("only the first withstands", str(len(comparison["only_first"]))),
        ("only the second withstands", str(len(comparison["only_second"]))),
        ("neither withstands", str(comparison["neither"])),
    ]


def listed(positions):
    """Positions of images as text, the first 20 of them."""
    if not positions:
        return "none"
    more = len(positions) - _LISTED
    return ", ".join(map(str, positions[:_LISTED])) + (f" and {more} more" if more > 0 else "")


def _note(comparison, report, other):
    """What the numbers mean, in sentences."""
    low, high = comparison["interval"]
    if comparison["p_value"] < 0.05:
        better = "first" if comparison["difference"] > 0 else "second"
        said = f"On these images the {better} network is more robust than chance explains."
    else:
        said = (
            "Chance explains the difference: these images do not tell which network is more robust."
        )
    if comparison["n"] < FEW_IMAGES:
        said += (
            f" {comparison['n']} images leave an interval of {100 * (high - low):.0f} points; "
            "1,000 are usual."
        )
    names = [[attack["name"] for attack in found["attacks"]] for found in (report, other)]
    configs = [[attack["config"] for attack in found["attacks"]] for found in (report, other)]
    if configs[0] != configs[1] or names[0] != names[1]:
        said += (
            f" The attacks differ ({', '.join(names[0])} and {', '.join(names[1])}): the network "
            "that met the weaker ones is flattered."
        )
    unreliable = [
        which
        for which, found in (("first", report), ("second", other))
        if found["reliability"] == "unreliable"
    ]
    if unreliable:
        said += f" Unreliable by its checks: the {' and the '.join(unreliable)}."
    return said


def _check_same(first, one, second, two):
    """Refuses reports of other images or threat models."""
    (report, table), (other, other_table) = one, two
    pairs = {
        "data sets": (report["dataset"], other["dataset"]),
        "splits": (report["split"], other["split"]),
        "images": (report["data"]["fingerprint"], other["data"]["fingerprint"]),
        "positions of the images": (table["index"].tolist(), other_table["index"].tolist()),
        "threat models": (threats(report), threats(other)),
    }
    for name, (here, there) in pairs.items():
        if here != there:
            values = f" ({here} and {there})" if isinstance(here, str) else ""
            raise InputError(
                f"`report` {second} cannot be compared with {first}: the {name} differ{values}."
            )


def _load(source):
    """A report and its table with one row per image."""
    folder = Path(source)
    folder = folder.parent if folder.name == REPORT else folder
    report = files.read_json(folder / REPORT)
    if report is None or not (folder / TABLE).is_file():
        raise InputError(
            f"`report` {source} must be a folder with {REPORT} and {TABLE}; evaluate with "
            "--output DIR."
        )
    name = f"`report` {source}"
    try:
        path = folder / TABLE
        with open_zip(path, name, max_bytes=_MAX_BYTES, setting=_SETTING) as archive:
            table = {key: read_array(archive, key, name) for key in ("index", "broken_by")}
        robust = np.count_nonzero(table["broken_by"] == "")
        complete = robust == round(report["worst_case_accuracy"] * report["n"])
        needed = (report["model"], report["dataset"], report["split"], report["reliability"])
        complete &= all(isinstance(value, str) for value in needed)
        complete &= isinstance(report["data"]["fingerprint"], str)
        complete &= all("config" in attack for attack in report["attacks"])
        complete &= len(table["index"]) == len(table["broken_by"]) == report["n"]
    except InputError:
        raise
    # Files that something else wrote raise whatever their content leads to.
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        complete = False
    if not complete:
        raise InputError(f"{name} cannot be read as a report of soar-tf evaluate.")
    return report, table

"""`soar-tf merge`: the reports of all shards of an evaluation as one report."""

import contextlib
import zipfile
import zlib
from pathlib import Path

import numpy as np

from soar_tf import evaluation, files
from soar_tf.errors import InputError
from soar_tf.evaluation import Shard
from soar_tf.evaluation.kept import Chosen
from soar_tf.models.findings import Finding
from soar_tf.models.untrusted.archives import open_zip, read_array
from soar_tf.reports import corruptions as corruptions_section
from soar_tf.reports import curve as curve_section
from soar_tf.reports.output import JSON, SHARD, TABLE, ReportPlace
from soar_tf.reports.stored import MAX_BYTES, StoredImages
from soar_tf.reports.summary import verdict
from soar_tf.runs.provenance import environment

_MAX_BYTES = 8 * 2**30  # of a shard's arrays, but for images
_SETTING = "soar_tf.reports.stored.MAX_BYTES"
_IMAGES = ("kept_clean", "kept_adversarial")


def add(report, shard, class_names, everything):
    """Adds to a shard's report what a merged report needs to know.

    Args:
        report: The report, changed in place.
        shard: The `soar_tf.evaluation.Shard`, bound to its images.
        class_names: Names of the classes, or `None`.
        everything: Whether all adversarial images are saved.
    """
    report["shard"] = {
        "index": shard.index,
        "count": shard.count,
        "total": shard.total,
        "belongs": shard.belongs,
        "class_names": class_names and list(class_names),
        "everything": everything,
    }
    report["note"] = (
        f"This is shard {shard}, {report['n']} of {shard.total} images; soar-tf merge puts all "
        f"shards together. {report['note']}"
    )


def uint8_counts(result):
    """How many images broke, and how many of them still fool after rounding to 8 bits."""
    clean, floats, rounded = (
        round(share * result.n)
        for share in (
            result.clean_accuracy,
            result.worst_case_accuracy,
            result.uint8_worst_case_accuracy,
        )
    )
    return {"found": clean - floats, "still_fool": clean - rounded}


def merge(sources, output):
    """Merges the reports of all shards of an evaluation.

    Neither the network nor the data are needed. What is written equals the report of a single
    process except for seconds and images per second, `environment`, and the list `shards` with
    the environment of each; see `soar_tf.evaluation.merge` for when it does so bit for bit.

    Args:
        sources: Folders that `soar-tf evaluate --shard` wrote, in any order.
        output: Folder for the report, or the path of a JSON report (`.json`).

    Returns:
        The report, a JSON-serializable dictionary.

    Raises:
        InputError: If a shard is missing, is given twice, belongs to another evaluation or cannot
            be read, or if `output` cannot be written.
    """
    with contextlib.ExitStack() as stack:
        return _merged(sources, [_load(source, stack) for source in sources], ReportPlace(output))


def _merged(sources, loaded, place):
    names = [f"`report` {source}" for source in sources]
    reports, results, curves, corrupted, kept = zip(*loaded, strict=True)
    result = evaluation.merge(results, names)
    first = reports[0]
    report = {key: value for key, value in first.items() if key != "shard"} | result.to_dict()
    report["attacks"] = [
        entry.to_dict() | {"config": old["config"]}
        for entry, old in zip(result.attacks, first["attacks"], strict=True)
    ]
    if result.uint8_worst_case_accuracy is not None:
        report["uint8"] = uint8_counts(result)
    report |= verdict(result)
    if not result.findings:
        report.pop("findings", None)
    report["environment"] = environment()
    report["shards"] = [
        {"shard": str(own.shard), "environment": old["environment"]}
        for old, own in sorted(zip(reports, results, strict=True), key=_by_index)
    ]
    curve = None
    if curves[0] is not None:
        curve = tuple(evaluation.merge(same, names) for same in zip(*curves, strict=True))
        report["curve"] = curve_section.section(*curve)
    if corrupted[0] is not None:
        report["corruptions"] = corruptions_section.section(evaluation.merge(corrupted, names))
    clean = Chosen(result.kept, kept)
    shape = next((own.shape for own in kept if len(own)), ())
    with place.made():
        place.write(
            report,
            result,
            lambda rows: _stacked([clean[int(row)] for row in rows], shape),
            first["shard"]["class_names"],
            everything=first["shard"]["everything"],
            curve=curve,
        )
    return report


def _by_index(pair):
    return pair[1].shard.index


def _stacked(images, shape):
    return np.stack(images) if images else np.zeros((0, *shape), np.float32)


def _load(source, stack):
    """A shard's report and results, with its kept clean images by position at the end.

    `stack` closes the images' file.
    """
    folder = Path(source)
    if folder.name == JSON:
        folder = folder.parent
    report = files.read_json(folder / JSON)
    if report is None:
        raise InputError(f"`report` {source} holds no {JSON}.")
    if "shard" not in report:
        raise InputError(f"`report` {source} is of all images, not of a shard (--shard K/N).")
    try:
        arrays = _arrays(folder / SHARD, _IMAGES)
        for name in _IMAGES:
            arrays[name] = StoredImages(folder / SHARD, name, arrays["kept"].tolist())
            stack.callback(arrays[name].close)
        return report, *_rebuilt(report, _arrays(folder / TABLE), arrays)
    except InputError:
        raise
    # Files that something else wrote raise whatever their content leads to.
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        raise InputError(
            f"`report` {source} cannot be read as a shard that soar-tf evaluate --shard wrote."
        ) from None


def _arrays(path, left_out=()):
    """The arrays of a file that are not images, which may take more than there is memory."""
    name = f"`report` {path}"
    with open_zip(path, name, max_bytes=MAX_BYTES, setting=_SETTING) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]
        names = [array for array in names if array not in left_out]
        size = sum(archive.getinfo(f"{array}.npy").file_size for array in names)
        if size > _MAX_BYTES:
            raise InputError(
                f"{name} must hold at most {_MAX_BYTES} bytes beside images "
                f"(soar_tf.reports.shards._MAX_BYTES). Received: {size}."
            )
        return {array: read_array(archive, array, name) for array in names}


def _rebuilt(report, table, arrays):
    shard = _shard(report)
    columns = {name: table[name] for name in evaluation.Examples.__dataclass_fields__}
    attacks = [
        evaluation.AttackResult(
            **{name: entry[name] for name in ("name", "norm", "epsilon", "robust_accuracy")},
            seconds=entry["seconds"],
            images_per_second=entry["images_per_second"],
            robust=robust,
            stages=tuple(entry.get("stages", ())),
            uint8_accuracy=entry.get("uint8_accuracy"),
        )
        for entry, robust in zip(report["attacks"], arrays["robust"], strict=True)
    ]
    result = evaluation.Evaluation(
        n=report["n"],
        clean_accuracy=report["clean_accuracy"],
        attacks=attacks,
        worst_case_accuracy=report["worst_case_accuracy"],
        seed=report["seed"],
        clean=table["clean_correct"],
        examples=evaluation.Examples(**columns),
        kept=arrays["kept_adversarial"],
        uint8_worst_case_accuracy=report.get("uint8_worst_case_accuracy"),
        shard=shard,
        findings=tuple(
            Finding(entry["name"], False, entry["message"]) for entry in report.get("findings", ())
        ),
    )
    return result, _curve(report, arrays, shard), _corrupted(report, shard), arrays["kept_clean"]


def _shard(report):
    """The shard, with everything that shards of one evaluation have in common."""
    own = report["shard"]
    common = {
        "data set": report["dataset"],
        "split": report["split"],
        "data": report["data"]["fingerprint"],
        # Networks without weights that can be compared are told apart by their paths.
        "model": report["weights"] or report["model"],
        "batch size": report["batch_size"],
        "version of soar-tf": report["environment"]["versions"].get("soar-tf"),
        "class names": own["class_names"],
        "saving of adversarial images": own["everything"],
        "curve": "curve" in report,
        "measurement of corruptions": "corruptions" in report,
    }
    return Shard(own["index"], own["count"], own["total"], own["belongs"] | common)


def _corrupted(report, shard):
    if "corruptions" not in report:
        return None
    return evaluation.CorruptionAccuracies(
        n=report["n"],
        seed=report["seed"],
        clean_accuracy=report["clean_accuracy"],
        accuracy={k: tuple(v) for k, v in report["corruptions"]["accuracy"].items()},
        shard=shard,
    )


def _curve(report, arrays, shard):
    if "curve" not in report:
        return None
    curve = report["curve"]
    common = {"n": report["n"], "seed": curve["seed"], "norm": curve["norm"], "shard": shard}
    sampled, nearest = curve["attacks"]
    return (
        evaluation.AccuracyCurve(
            attack=sampled["attack"],
            epsilons=tuple(curve["epsilons"]),
            accuracy=tuple(sampled["accuracy"]),
            broken_at=arrays["broken_at"],
            **common,
        ),
        evaluation.MinimumNorms(attack=nearest["attack"], distances=arrays["distances"], **common),
    )

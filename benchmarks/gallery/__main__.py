"""Measures the gallery: `python -m benchmarks.gallery`. Entries that are measured already are kept.

Writes `docs/results/gallery.json` after each entry, and the tables of `docs/gallery.md` from it.
"""

import argparse
import json
import pathlib

from soar_tf.cli.startup import load_tensorflow

load_tensorflow()

import soar_tf  # noqa: E402 (after the quiet import of TensorFlow)
from benchmarks.gallery import measure, tables  # noqa: E402
from benchmarks.gallery.honest import HONEST  # noqa: E402
from benchmarks.gallery.masks import MASKS  # noqa: E402
from soar_tf.files import write_json, write_text  # noqa: E402

RESULT = pathlib.Path(__file__).parents[2] / "docs" / "results" / "gallery.json"


def main():
    """Measures what is not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=pathlib.Path, default=RESULT, help="file for the results")
    parser.add_argument("--half", choices=[measure.SET, measure.TESTED], help="only this half")
    arguments = parser.parse_args()
    digits = soar_tf.datasets.load("digits")
    test = digits["test"].take(measure.COUNT)
    x, y = test.float_images(), test.labels
    bare = measure.bare_network(digits["train"])
    found = {"about": measure.about(), "bare": None, "masks": {}, "honest": {}}
    if arguments.json.is_file():
        found = json.loads(arguments.json.read_text())
        if found["about"] != measure.about():
            raise SystemExit(f"{arguments.json} was measured with other settings; remove it.")
    found["bare"] = found["bare"] or measure.truth(bare, x, y)
    makers = {
        "honest": {
            name: lambda entry=entry: measure.honest_row(entry.trained(digits["train"]), x, y)
            for name, entry in HONEST.items()
        },
        "masks": {
            name: lambda mask=mask: measure.masked_row(mask(bare), x, y)
            for name, mask in MASKS.items()
        },
    }
    for half in (measure.SET, measure.TESTED):
        for kind, entries in makers.items():
            for name, own in measure.halves(entries).items():
                if own != half or name in found[kind] or arguments.half not in (None, half):
                    continue
                found[kind][name] = {"half": half, **entries[name]()}
                write_json(arguments.json, found)
                write_text(arguments.json.with_suffix(".md"), tables.text(found))
                print(kind, name, found[kind][name], flush=True)


main()

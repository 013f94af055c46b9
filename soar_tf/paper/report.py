"""The results of an entry in the paper's layout: JSON, CSV, Markdown and a picture."""

import csv
import dataclasses
import io
import sys
from collections.abc import Callable

import numpy as np

from soar_tf import files

UNITS = {"%": "{:.1f}", "": "{:.4g}"}


@dataclasses.dataclass
class Grid:
    """A table: a list of values, one per seed, for each row and column.

    Attributes:
        name: Short name, for CSV and JSON.
        caption: Text above the table.
        columns: Names of the columns, in order.
        rows: Maps rows to `{column: [value of each seed]}`; a missing column is an empty cell.
        labels: Display names of rows and columns, if they differ from their names.
        paper: The paper's `{row: {column: (mean, standard deviation)}}`, or `{}`.
        unit: `"%"` for percentages, `""` for plain numbers.
        corner: Header of the first column.
    """

    name: str
    caption: str
    columns: tuple
    rows: dict
    labels: dict = dataclasses.field(default_factory=dict)
    paper: dict = dataclasses.field(default_factory=dict)
    unit: str = ""
    corner: str = ""

    def published(self, row, column):
        """The paper's `(mean, standard deviation)`, or `None`."""
        return self.paper.get(row, {}).get(column)

    def markdown(self):
        """The table as Markdown, with the paper's values in parentheses."""
        header = [self.corner, *(self.labels.get(c, c) for c in self.columns)]
        lines = [f"| {' | '.join(header)} |", "|" + " --- |" + " ---: |" * len(self.columns)]
        for row, cells in self.rows.items():
            texts = [self._cell(row, column, cells.get(column)) for column in self.columns]
            lines.append(f"| {' | '.join([self.labels.get(row, row), *texts])} |")
        return "\n".join([self.caption, "", *lines])

    def _cell(self, row, column, values):
        parts = [] if values is None else [mean_and_deviation(values, self.unit)]
        if (published := self.published(row, column)) is not None:
            parts.append("({} ± {})".format(*published))
        return " ".join(parts)

    def records(self):
        """One dictionary per cell, for CSV and JSON."""
        for row, cells in self.rows.items():
            for column in self.columns:
                if column not in cells:
                    continue
                values = cells[column]
                mean, deviation = self.published(row, column) or (None, None)
                yield {
                    "table": self.name,
                    "row": row,
                    "column": column,
                    "unit": self.unit,
                    "mean": float(np.mean(values)),
                    "standard_deviation": float(np.std(values, ddof=1)) if values[1:] else None,
                    "seeds": len(values),
                    "paper_mean": mean,
                    "paper_standard_deviation": deviation,
                }


def mean_and_deviation(values, unit=""):
    """`mean ± sample standard deviation` over seeds, or the value if there is only one.

    Example:

    >>> from soar_tf.paper.report import mean_and_deviation
    >>> mean_and_deviation([80.0, 82.0], "%")
    '81.0 ± 1.4'
    """
    text = UNITS[unit].format(float(np.mean(values)))
    if len(values) == 1 or (not unit and min(values) == max(values)):  # such as a closed form
        return text
    return f"{text} ± {UNITS[unit].format(np.std(values, ddof=1))}"


@dataclasses.dataclass
class Report:
    """The result of an entry.

    Attributes:
        title: Title of the Markdown file.
        grids: The tables.
        findings: Texts in which every number is computed.
        data: The data of the picture, and more; JSON-serializable.
        draw: Callable that returns the picture as a matplotlib figure, or `None`.
    """

    title: str
    grids: list
    findings: list = dataclasses.field(default_factory=list)
    data: dict = dataclasses.field(default_factory=dict)
    draw: Callable | None = None


def names(name):
    """The files that `write` creates for an entry."""
    return [f"{name}.{suffix}" for suffix in ("json", "csv", "md", "png")]


def write(report, folder, name, note, manifest):
    """Writes the files of a result into an existing folder.

    Args:
        report: The `Report`.
        folder: `pathlib.Path`.
        name: The entry's name.
        note: A text on how the result was obtained.
        manifest: JSON-serializable dictionary: settings, networks, versions.

    Returns:
        The paths written.
    """
    records = [record for grid in report.grids for record in grid.records()]
    json_file, csv_file, markdown_file, picture = (folder / file for file in names(name))
    values = {grid.name: grid.rows for grid in report.grids}
    files.write_json(
        json_file,
        {
            "title": report.title,
            "note": note,
            "findings": report.findings,
            "cells": records,
            "values": values,
            "data": report.data,
            "manifest": manifest,
        },
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    files.write_text(csv_file, text.getvalue())
    parts = [f"# {report.title}", note, *(grid.markdown() for grid in report.grids)]
    if report.findings:
        parts.append("\n".join(f"- {finding}" for finding in report.findings))
    files.write_text(markdown_file, "\n\n".join(parts) + "\n")
    written = [json_file, csv_file, markdown_file]
    if report.draw is not None and _draw(report, picture):
        written.append(picture)
    return written


def _draw(report, path):
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        print(
            f"matplotlib is not installed, so there is no {path.name}; run: pip install "
            "'soar-tf[plots]'.",
            file=sys.stderr,
        )
        return False
    with files.replacing(path) as temporary:
        report.draw().savefig(temporary, dpi=120)
    return True

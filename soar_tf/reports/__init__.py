"""Reports of an evaluation as files: JSON, Markdown, HTML, and a table with one row per example."""

from soar_tf.reports import cards
from soar_tf.reports.examples import write_csv, write_npz
from soar_tf.reports.pages import html, markdown
from soar_tf.reports.report_plots import drawn_curve, figures

__all__ = ["cards", "drawn_curve", "figures", "html", "markdown", "write_csv", "write_npz"]

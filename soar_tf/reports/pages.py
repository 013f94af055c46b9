"""The report as Markdown and as one self-contained HTML page, which has no scripts."""

import base64
import re

import jinja2
import markupsafe
import numpy as np
import tensorflow as tf

from soar_tf import plots
from soar_tf.formatting import duration_text, percent, radius_text, threat_text
from soar_tf.plots.adversarial_examples import magnified
from soar_tf.reports.opening import opening
from soar_tf.reports.report_plots import curve_attacks, figures

_SMALLEST_SIDE = 96  # pixels of a picture in the page


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("soar_tf.reports"),
    autoescape=jinja2.select_autoescape(["html.j2"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "percent": percent,
    "radius": radius_text,
    "duration": duration_text,
    "versions": lambda found: ", ".join(f"{name} {version}" for name, version in found.items()),
    "number": lambda value: value if isinstance(value, str) else f"{value:.4g}",
    "cell": lambda value: str(value).replace("|", "\\|").replace("\n", " "),
    "backquotes": lambda text: markupsafe.Markup(  # nosec B704: what it wraps is escaped
        re.sub("`([^`]*)`", r"<code>\1</code>", str(markupsafe.escape(text)))
    ),
}


def machines(shards):
    """The machines that shards were computed on, each once with its versions."""
    found = [shard["environment"] for shard in shards]
    texts = [
        f"{own['processor']}, {own['cpu_count']} cores, {', '.join(own['devices'])}, TensorFlow "
        f"{own['versions'].get('tensorflow') or own['versions'].get('tensorflow-cpu', 'unknown')}"
        for own in found
    ]
    return list(dict.fromkeys(texts))


_ENVIRONMENT.globals |= {
    "threat": threat_text,
    "curve_attacks": curve_attacks,
    "machines": machines,
}


def render(template, **values):
    """A template of this room, filled."""
    return _ENVIRONMENT.get_template(template).render(**values)


def markdown(report, pictures=()):
    """The report as Markdown.

    Args:
        report: The report, see `soar_tf.reports.evaluation.evaluate_model`.
        pictures: File names of pictures beside it.

    Returns:
        The text.
    """
    return render(
        "report.md.j2",
        report=report,
        opening=opening(report),
        threats=threats(report),
        pictures=pictures,
    )


def html(report, gallery=()):
    """The report as one HTML page that needs nothing from anywhere.

    Args:
        report: The report.
        gallery: Dictionaries of images that broke: `index`, `image` and `adversarial` (float
            `[H, W, C]` in [0, 1]); as texts `clean`, `predicted`, `broken_by`, `linf`, `l2`.

    Returns:
        The text.
    """
    return render(
        "report.html.j2",
        report=report,
        opening=opening(report),
        threats=threats(report),
        plots=[
            (title, data_uri(plots.to_png(figure))) for title, figure in figures(report).values()
        ],
        plots_missing=not plots.available(),
        gallery=[_shown(entry) for entry in gallery if entry["image"].shape[-1] in (1, 3)],
    )


def data_uri(png):
    """A PNG's bytes as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def threats(report):
    """The threat models of all attacks, each once."""
    texts = [threat_text(attack["norm"], attack["epsilon"]) for attack in report["attacks"]]
    named = list(dict.fromkeys(text for text in texts if text != "-"))
    if "-" in texts:
        named.append("transformations")
    return " and ".join(named)


def _shown(entry):
    picture, factor = magnified(entry["image"], entry["adversarial"])
    images = (entry["image"], entry["adversarial"], picture)
    pictures = [data_uri(_png(image)) for image in images]
    return {**entry, "pictures": pictures, "factor": f"{factor:.3g}"}


def _png(image):
    """A picture as PNG, enlarged by whole pixels: adversarial images must not be smoothed."""
    times = -(-_SMALLEST_SIDE // min(image.shape[:2]))
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return tf.io.encode_png(pixels.repeat(times, axis=0).repeat(times, axis=1)).numpy()

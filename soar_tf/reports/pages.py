"""The report as Markdown and as one self-contained HTML page, which has no scripts."""

import base64
import re

import jinja2
import markupsafe
import numpy as np
import tensorflow as tf

from soar_tf import plots
from soar_tf.formatting import duration_text, percent, radius_text, rate_text, threat_text
from soar_tf.plots.adversarial_examples import magnified
from soar_tf.reports.opening import opening
from soar_tf.reports.report_plots import curve_attacks, figures

_SMALLEST_SIDE = 96  # pixels of a picture in the page


def plain(value):
    """A text in Markdown, as text: names of models and classes may hold tags, links and pictures.

    Example:

    >>> from soar_tf.reports.pages import plain
    >>> plain("<b>a</b> < 3"), plain("![x](http://example.org)")
    ('&lt;b>a&lt;/b> < 3', '![x]\\\\(http://example.org)')
    """
    if not isinstance(value, str) or isinstance(value, markupsafe.Markup):
        return value
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", value).replace("](", "]\\(")


_OPTIONS = {
    "loader": jinja2.PackageLoader("soar_tf.reports"),
    "undefined": jinja2.StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
}
_MARKDOWN = jinja2.Environment(finalize=plain, **_OPTIONS)  # nosec B701: it is no HTML
_HTML = jinja2.Environment(autoescape=True, **_OPTIONS)
_FILTERS = {
    "percent": percent,
    "radius": radius_text,
    "rate": rate_text,
    "code": lambda text: markupsafe.Markup(  # nosec B704: nothing in a code span is a tag
        str(text).replace("`", "'")
    ),
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


for _environment in (_MARKDOWN, _HTML):
    _environment.filters |= _FILTERS
    _environment.globals |= {
        "threat": threat_text,
        "curve_attacks": curve_attacks,
        "machines": machines,
    }


def render(template, **values):
    """A template of this room, filled."""
    environment = _HTML if template.endswith(".html.j2") else _MARKDOWN
    return environment.get_template(template).render(**values)


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

"""References in Markdown, made from the docstrings and signatures of what is registered."""

import inspect
import re

from soar_tf.formatting import radius_text

_SECTION = re.compile(r"^(Args|Returns|Raises|Example|Attributes|Shapes|Reference):$", re.M)
_ENTRY = re.compile(r"^    (\*{0,2}\w+): ", re.M)


def markdown(kind, objects):
    """The reference of a registry.

    Args:
        kind: `"methods"`, `"attacks"` or `"networks"`.
        objects: Names to classes or functions with docstrings in this package's form.

    Returns:
        The document, a string.
    """
    lines = [
        f"# {kind.capitalize()}",
        "",
        f"Made by `soar-tf list {kind} --markdown`; do not edit.",
    ]
    if kind == "methods":
        lines += [
            "",
            "Use one by `soar-tf train --method NAME --method-arg ARGUMENT=VALUE`, or as "
            "`soar_tf.RobustModel(network, soar_tf.methods.get(NAME, ...))`. A number that is no "
            "integer may follow a schedule: `ramp(START, END, epochs=N)` or "
            "`stairs(A, B, ..., epochs=N)`, with `steps=` instead of `epochs=` or a later start, "
            "`after=`.",
            "",
            "`penalty_fraction` f: of a batch of B, ceil(f B) examples carry the penalty, one "
            "drawn from each run of neighbours and counted for all of it, so that the expected "
            "penalty is exactly that of the whole batch. `penalty_every` k: the penalty comes in "
            "every k-th step, k times as large; where its gradient is clipped, it is after that.",
        ]
    for name, item in objects.items():
        lines += ["", f"## {name}", "", *_entry(item)]
    return "\n".join(lines) + "\n"


def _entry(item):
    """The description and the table of arguments of one object."""
    doc = inspect.getdoc(item) or ""
    parts = _SECTION.split(doc)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    described = _arguments(sections.get("Args", ""))
    lines = [parts[0].strip()]
    parameters = inspect.signature(item).parameters.values()
    if parameters:
        lines += ["", "| argument | default | meaning |", "| --- | --- | --- |"]
    for parameter in parameters:
        meaning = described.get(parameter.name, "").replace("|", "\\|")
        lines.append(f"| `{parameter.name}` | {_default(parameter)} | {meaning} |")
    return lines


def _arguments(section):
    parts = _ENTRY.split(section)
    return {
        name.lstrip("*"): " ".join(text.split())
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def _default(parameter):
    value = parameter.default
    if value is inspect.Parameter.empty:
        return "required"
    text = radius_text(value) if isinstance(value, float) else str(value)
    return f"`{text}`"

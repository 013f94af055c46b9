"""Extension of griffe, which reads the docstrings: examples become code blocks.

The docstrings' examples are plain `>>>` lines, as doctest reads them; Markdown would take them for
nested quotations.
"""

import re

import griffe

# An example and what it prints, up to the next empty line.
_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.M)


class Doctests(griffe.Extension):
    """Fences the `>>>` lines of every docstring."""

    def on_object(self, *, obj, **_):
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)

"""Copies tables and findings from result files into the documents: `python docs/fill.py`.

A document marks a place with two comments, `<!-- begin FILE: START -->` and `<!-- end -->`. Between
them goes the part of FILE (relative to `docs/`) that begins with START: a paragraph, with the
table that follows it. `tests/test_theory_docs.py` checks that nobody edited it by hand.
"""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
_PLACE = re.compile(r"(<!-- begin (\S+): (.+?) -->\n)(.*?)(<!-- end -->)", re.S)


def part(file, start):
    """The paragraph of a result file that begins with `start`, and the table after it."""
    paragraphs = file.read_text(encoding="utf-8").strip().split("\n\n")
    matches = [i for i, paragraph in enumerate(paragraphs) if paragraph.startswith(start)]
    if len(matches) != 1:
        raise ValueError(f"{file} has {len(matches)} paragraphs that begin with {start!r}, not 1.")
    chosen = paragraphs[matches[0] :][:2]
    return "\n\n".join(chosen if chosen[-1].startswith("|") else chosen[:1])


def filled(text):
    """A document's text with every marked place filled."""
    return _PLACE.sub(lambda m: f"{m[1]}\n{part(DOCS / m[2], m[3])}\n\n{m[5]}", text)


if __name__ == "__main__":
    for document in sorted([*DOCS.glob("*.md"), *DOCS.glob("guides/*.md")]):
        text = document.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            document.write_text(new, encoding="utf-8")
            print(document)

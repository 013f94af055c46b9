"""Names and phrases that read as translated stay out of the packages and pages listed here.

The lists are short on purpose: each entry is wrong wherever it appears. A phrase that turns out to
be good English somewhere is to be narrowed, not excepted.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    *("attacks", "callbacks", "corruptions", "methods", "ops", "paper", "plots"),
    *("second_order", "theory"),
)
PAGES = (
    *("README.md", "CONTRIBUTING.md", "docs/theory.md"),
    *(
        f"docs/guides/{name}.md"
        for name in (
            *("choose_method", "compare", "fine_tune", "from_other_libraries", "harden_folder"),
            *("measure", "read_report", "resume", "ship", "transfer"),
            *("write_attack", "write_method"),
        )
    ),
)
SOURCES = [
    path
    for package in PACKAGES
    for path in sorted((ROOT / "soar_tf" / package).rglob("*.py"))
    if "__pycache__" not in path.parts
]

# Names that say that there is a value, but not which.
NAMES = re.compile(
    r"found|own|own_\w+|made|made_\w+|lent|nothing|others|told|shown|booked|withstood"
    r"|aims?|rooms?|houses?|sentences?|word|say_\w+"
)
_COUNTED = (
    "class|curve|dictionary|file|figure|integer|key|line|logit|number|pair|panel|pass|point|row|"
    "sentence|sign|step|test|tensor|value"
)
_PER = (
    "attack|axis|cell|channel|class|coordinate|corner|epoch|example|file|image|layer|method|mode|"
    "network|picture|plot|row|run|seed|spatial axis|step|word"
)
# Each phrase, a text that it finds, and what to write instead.
PHRASES = (
    (rf"\b(one|an?|some) ({_COUNTED})s? an? ({_PER})\b", "one row an example", "one row per ..."),
    (r"\b(gradient|derivative|Hessian)s? by the (?!same)", "gradient by the weights", "in, of"),
    (r"\bdifferentiated by the\b", "differentiated by the input", "with respect to"),
    (r"\bgo(es|ing)? on (after|together|until|where|with)\b", "goes on where", "resumes"),
    (r"\bwithst(and|ands|ood)\b", "it withstands", "survives, is robust to"),
    (r"\bcomes? back (as|unchanged)\b", "comes back unchanged", "is returned"),
    (r"\bstands? (beside|corrected|here)\b", "they stand beside", "is, is next to"),
    (r"\bstands? in (the|docs|`|\[)", "it stands in the manual", "is in"),
    (r"\bknows no (radius|epsilon)\b", "knows no radius", "does not depend on the radius"),
    (r"(?<!there )\b(is|are) no (bound|equality|image|integer|proof)\b", "is no bound", "is not a"),
    (r"\bcut (at|to|with) the (box|clip|image|pixel)\b", "cut to the box", "clipped"),
    (r"\bunless told otherwise\b", "unless told otherwise", "by default"),
    (r"\bfor want of\b", "for want of", "because ... lacks"),
    (r"\bslip in print\b", "a slip in print", "misprint"),
    (r"\bwhat came\b", "names what came", "what was received"),
    (r"\bnothing to complain\b", "nothing to complain of", "passes"),
    (r"\b(work|works|worked) on together\b", "worked on together", "processed at once"),
    (r"\b[Rr]efus(e|es|ed|ing) (a|the|labels|it)\b", "refuses the network", "rejects"),
)


def text_of(path):
    """A file's text on one line, without the marks of comments, so that phrases may wrap."""
    lines = (re.sub(r"^\s*#\s", " ", line) for line in path.read_text("utf-8").splitlines())
    # Results are quoted as they were written.
    text = "\n".join(lines)
    text = re.sub(r"<!-- begin.*?<!-- end -->", "", text, flags=re.S)
    return " ".join(text.split())


def bound_names(tree):
    """The names that a module binds, without leading underscores."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield getattr(node, "id", None) or node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def bad_names(code):
    names = (name.lstrip("_") for name in bound_names(ast.parse(code)))
    return sorted({name for name in names if NAMES.fullmatch(name)})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_say_what_they_hold(path):
    assert bad_names(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "path",
    [*SOURCES, *(ROOT / page for page in PAGES)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_phrases_are_english(path):
    text = text_of(path)
    matches = [(re.search(phrase, text), advice) for phrase, _, advice in PHRASES]
    assert [f"{match[0]!r}: {advice}" for match, advice in matches if match] == []


@pytest.mark.parametrize(("phrase", "example"), [row[:2] for row in PHRASES])
def test_each_phrase_is_detected(phrase, example):
    assert re.search(phrase, example)


@pytest.mark.parametrize(
    "text",
    [
        "One row per example; a step an attacker takes; one class and a method.",
        "The value goes on the left; a token stands in for the image; there is no bound.",
        "The gradient by the same rule; the figure shows a curve; come back later.",
    ],
)
def test_good_english_is_not_detected(text):
    assert [phrase for phrase, *_ in PHRASES if re.search(phrase, text)] == []


def test_bad_names_are_detected():
    code = (
        "def say_it(own_x, *, target):\n    self._found, points = own_x\n    ownership = made = 1\n"
    )
    assert bad_names(code) == ["found", "made", "own_x", "say_it"]

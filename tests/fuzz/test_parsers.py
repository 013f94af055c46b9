"""Whatever comes in, a parser gives a value or one sentence: `InputError`, or click's own error."""

import pathlib
import tempfile

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seeds import CORPUS, seeds

from soar_tf import attacks, datasets, files, methods
from soar_tf.cli import params
from soar_tf.errors import InputError, RunError
from soar_tf.evaluation import State
from soar_tf.models import loading, zoo
from soar_tf.models.untrusted import (
    keras_configs,
    litert_files,
    onnx_files,
    saved_models,
    torch_files,
)
from soar_tf.runs import checkpoints, cluster, config, config_file
from soar_tf.validation import parse_number

quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def text_of(content):
    return content.decode("utf-8", errors="replace")


def in_file(name, read):
    """A parser of files as a parser of bytes."""

    def parse(content):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, name)
            path.write_bytes(content)
            return read(path)

    return parse


def from_toml(path):
    values = config_file.read_toml(path)
    config.TrainConfig(**values).resolved(fine_tunes=True)


def from_method_arg(content):
    key, value = params.KeyValue().convert(text_of(content), None, None)
    return methods.get("soar", **{key: value})


def from_checkpoint_name(content):
    name = text_of(content).replace("/", "_").replace("\0", "_")[:80] or "x"
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "checkpoints").mkdir()
        pathlib.Path(folder, "checkpoints", name).write_bytes(b"no checkpoint") if name not in (
            ".",
            "..",
        ) else None
        return checkpoints.newest(pathlib.Path(folder, "checkpoints"))


def from_saved_model(content):
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "saved_model.pb").write_bytes(content)
        saved_models.check(folder, "model")


PARSERS = {
    "number": lambda content: parse_number(text_of(content), "epsilon"),
    "attack": lambda content: attacks.get(text_of(content), epsilon=0.1),
    "method_arg": from_method_arg,
    "image_size": lambda content: params.Size().convert(text_of(content), None, None),
    "toml": in_file("run.toml", from_toml),
    "manifest": in_file("manifest.json", files.read_json),
    "progress": checkpoints.parse_progress,
    "checkpoint_name": from_checkpoint_name,
    "npz": in_file("set.npz", lambda path: datasets.load(f"npz:{path}")),
    "keras_config": lambda content: keras_configs.check(files.parse_json(content, "x"), "x"),
    "keras": in_file("model.keras", loading.load_network),
    "saved_model": from_saved_model,
    "hosts": lambda content: cluster.read("multi-worker", text_of(content), 0),
    "tf_config": lambda content: cluster.read("multi-worker", tf_config=text_of(content)),
    "schedule": lambda content: methods.last_value(text_of(content)),
    "card": in_file(zoo.CARD, lambda path: zoo.figures(zoo.read_card(path.parent))),
    "litert": in_file("m.tflite", lambda path: litert_files.read(path, "x")),
    "onnx": in_file("m.onnx", lambda path: onnx_files.read(path, "x")),
    "torch": in_file("m.pt", lambda path: torch_files.read(path, "x")),
    "safetensors": in_file("m.safetensors", lambda path: torch_files.read(path, "x")),
    "evaluation_state": in_file("evaluation.state", State),
}


def parse(parser, content):
    """Runs a parser; anything but a value or a sentence fails the test."""
    if parser == "onnx":
        pytest.importorskip("onnx")
    try:
        PARSERS[parser](content)
    except (InputError, RunError) as error:
        assert "\n" not in str(error)
    except click.ClickException:
        pass


@st.composite
def damaged(draw, parser):
    """A seed with bytes replaced, inserted, removed or doubled, or another seed's tail."""
    corpus = seeds(parser)
    content = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        how = draw(st.sampled_from(("replace", "insert", "remove", "double", "splice")))
        if how == "replace" and content:
            content[place] = draw(st.integers(0, 255))
        elif how == "insert":
            content[place:place] = draw(st.binary(max_size=8) | st.sampled_from(WORDS))
        elif how == "remove":
            del content[place : place + draw(st.integers(1, 16))]
        elif how == "double":
            content[place:place] = content[place : place + 32]
        else:
            content[place:] = draw(st.sampled_from(corpus))[place:]
    return bytes(content)


ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=60).map(str.encode)
WORDS = (
    b"=",
    b":",
    b",",
    b"[",
    b"{",
    b'"',
    b"nan",
    b"-1",
    b"1e308",
    b"9" * 30,
    b"../",
    b"\0",
    b"None",
    b"true",
    b"epsilon",
    b"steps",
    "²".encode(),
)


def test_every_parser_has_a_corpus():
    assert {path.name for path in CORPUS.iterdir()} == set(PARSERS)


@pytest.mark.parametrize("parser", PARSERS)
def test_the_corpus(parser):
    for content in seeds(parser):
        parse(parser, content)


@pytest.mark.parametrize("parser", PARSERS)
@quick
@given(data=st.data())
def test_damaged_seeds(parser, data):
    parse(parser, data.draw(damaged(parser)))


@pytest.mark.parametrize("parser", PARSERS)
@quick
@given(
    content=st.binary(max_size=200)
    | st.text(st.characters(codec="utf-8"), max_size=60).map(str.encode)
)
def test_anything(parser, content):
    parse(parser, content)


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS)
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_seeds_at_length(parser, data):
    parse(parser, data.draw(damaged(parser)))

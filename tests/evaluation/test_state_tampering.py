"""State files that somebody has changed, checksums included: one message, and no wrong figure."""

import hashlib
import io
import json

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf.errors import InputError
from soar_tf.evaluation import State, old_state, state_log, tables
from soar_tf.evaluation.state_log import StateLog

HUGE = 10**15


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """An evaluation as a function of its state, and the entries of its file."""
    keras.utils.set_random_seed(4)
    network = keras.Sequential(
        [
            keras.Input((3, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(5, kernel_initializer="he_normal"),
        ]
    )
    x = np.random.default_rng(4).uniform(0, 1, (9, 3, 2, 1)).astype("float32")
    y = np.argmax(network(x), axis=1)
    evaluator = soar_tf.evaluation.Evaluator(
        network, ["fgsm:epsilon=0.05", "pgd3:epsilon=0.3"], keep=9, batch_size=9, adaptive=False
    )
    path = tmp_path_factory.mktemp("state") / "whole.state"
    found = evaluator(x, y, state=path)
    assert 0 < len(found.kept) < 9
    log = StateLog.open(path)
    entries = [(dict(e), log.array(p, np.uint8, int(e["bytes"]))) for e, p in log.entries()]
    return (lambda state: evaluator(x, y, state=state)), entries


def rows(column, value, everywhere=False):
    """A change of the stored rows: of the last row in each table, or of all."""

    def change(entry, data):
        if entry["kind"] == "rows":
            table = data.view(tables.STORED).copy()
            table[column][slice(None) if everywhere else -1] = value
            data = table
        return entry, data

    return change


def entry(which, **values):
    """A change of an entry's JSON."""
    return lambda e, data: (e | values if e["kind"] == which else e, data)


def without(kind, *names):
    return lambda e, data: (
        {k: v for k, v in e.items() if e["kind"] != kind or k not in names},
        data,
    )


def identity(**values):
    """A change of what the state belongs to; `None` leaves a name out."""

    def change(e, data):
        if e["kind"] == "identity":
            left = {k: v for k, v in e["values"].items() if k not in values}
            e = e | {"values": left | {k: v for k, v in values.items() if v is not None}}
        return e, data

    return change


def raw_rows(byte):
    """Truth values that are neither: the byte behind `broken` of each row."""

    def change(e, data):
        if e["kind"] == "rows":
            table = data.view(tables.STORED).copy()
            table["broken"].view(np.uint8)[:] = byte
            data = table
        return e, data

    return change


def images(value):
    def change(e, data):
        if e["kind"] == "images":
            data = data.view(np.float32).copy()
            data[-1] = value
        return e, data

    return change


def columns(edit):
    """A change of the table's stored columns."""

    def change(e, data):
        if e["kind"] == "rows":
            table = edit(data.view(tables.STORED))
            pairs = [[name, table.dtype[name].str] for name in table.dtype.names]
            return e | {"columns": pairs}, table
        return e, data

    return change


def keep(*names):
    def edit(table):
        left = np.empty(len(table), [(name, tables.STORED[name]) for name in names])
        for name in names:
            left[name] = table[name]
        return left

    return edit


def outputs(array):
    def change(e, data):
        if e["kind"] == "outputs":
            return e | {"dtype": array.dtype.str, "shape": list(array.shape)}, array
        return e, data

    return change


def flip(entry, data):
    """Every image that broke withstood, says the file."""
    if entry["kind"] == "rows":
        data = data.view(tables.STORED).copy()
        data["broken"] = False
    return entry, data


TAMPERED = {
    "a row beyond the images": rows("row", 9),
    "a row far beyond the images": rows("row", HUGE),
    "a row before the first": rows("row", -1),
    "a row that is not done": rows("done", False),
    "a truth value of 2": raw_rows(2),
    "a truth value of 255": raw_rows(255),
    "broken images that withstood": flip,
    "a class below 0": rows("prediction", -1),
    "a class too many": rows("prediction", 5),
    "a class far too many": rows("prediction", 2**31 - 1),
    "a distance of NaN": rows("linf", np.nan),
    "a distance below 0": rows("l2", -0.1),
    "an infinite distance": rows("l1", np.inf),
    "a distance wider than the pixel range": rows("linf", 1.5),
    "an l2 distance below that of linf": rows("l2", 0.0),
    "an l1 distance above what the pixels allow": rows("l1", 6.5),
    "a loss below 0": rows("loss", -1.0),
    "no column of outcomes": columns(keep("row", "done", "prediction", "linf", "l2", "l1")),
    "no column of distances": columns(keep("row", "done", "broken", "prediction")),
    "no column of rows": columns(lambda t: keep("done", "broken")(t)),
    "rows as objects": entry("rows", columns=[["row", "|O"]]),
    "rows of another type": entry("rows", columns=[["row", "<f8"]]),
    "a column nobody knows": entry("rows", columns=[["row", "<i8"], ["x", "<i8"]]),
    "a column twice": entry("rows", columns=[["row", "<i8"], ["row", "<i8"]]),
    "columns that are none": entry("rows", columns=7),
    "no columns": entry("rows", columns=[]),
    "no seconds": without("rows", "seconds"),
    "seconds of NaN": entry("rows", seconds=float("nan")),
    "infinite seconds": entry("rows", seconds=float("inf")),
    "seconds below 0": entry("rows", seconds=-1.0),
    "seconds as text": entry("rows", seconds="7"),
    "seconds as a truth value": entry("rows", seconds=True),
    "a key that is a number": entry("rows", key=0),
    "a key that is a list": entry("rows", key=["0 fgsm"]),
    "no key": without("rows", "key"),
    "a kind that nobody knows": entry("rows", kind="row"),
    "no kind": lambda e, data: ({k: v for k, v in e.items() if k != "kind"}, data),
    "an identity that is a list": entry("identity", values=[1, 2]),
    "an identity that is text": entry("identity", values="all"),
    "an identity of nothing": entry("identity", values={}),
    "no network": identity(network=None),
    "no images": identity(images=None),
    "no labels": identity(labels=None),
    "no attacks": identity(attacks=None),
    "no seed": identity(seed=None),
    "another seed": identity(seed=1),
    "a seed that is a list": identity(seed=[0]),
    "attacks that nest deeply": identity(attacks=[[[[[[{}]]]]]]),
    "positions that are not broken": entry("images", positions=list(range(9))),
    "a position before the first": lambda e, data: (
        e | ({"positions": [-1, *e["positions"][1:]]} if e["kind"] == "images" else {}),
        data,
    ),
    "a position far beyond": lambda e, data: (
        e | ({"positions": [HUGE, *e["positions"][1:]]} if e["kind"] == "images" else {}),
        data,
    ),
    "positions that are none": entry("images", positions={"a": 1}),
    "images of another shape": entry("images", shape=[2, 3, 1]),
    "images of no shape": entry("images", shape=[]),
    "images of a shape below 0": entry("images", shape=[-3, -2, 1]),
    "images of a shape too large": entry("images", shape=[HUGE, HUGE, 1]),
    "images of complex numbers": entry("images", dtype="<c8", shape=[3, 1, 1]),
    "images of long numbers": entry("images", dtype="<f8", shape=[3, 1, 1]),
    "images of objects": entry("images", dtype="|O"),
    "images of a type that is none": entry("images", dtype="float99"),
    "a pixel above 1": images(1.5),
    "a pixel below 0": images(-0.5),
    "a pixel of NaN": images(np.nan),
    "outputs of other numbers": outputs(np.zeros((9, 5), "<f4")),
    "outputs of NaN": outputs(np.full((9, 5), np.nan, "<f4")),
    "outputs as whole numbers": outputs(np.zeros((9, 5), "<i4")),
    "outputs as text": outputs(np.full((9, 5), "a")),
    "outputs in a row": outputs(np.zeros(45, "<f4")),
    "outputs that are objects": entry("outputs", dtype="|O"),
    "outputs of a huge shape": entry("outputs", shape=[HUGE, HUGE]),
    "outputs of nothing": entry("outputs", shape=[HUGE], dtype="|V0"),
}


def write(path, records):
    StateLog.create(path, [records])


@pytest.mark.parametrize("change", TAMPERED)
def test_what_was_tampered_with_is_refused(change, evaluation, tmp_path):
    evaluate, entries = evaluation
    write(tmp_path / "s", [TAMPERED[change](dict(e), data) for e, data in entries])
    before = (tmp_path / "s").read_bytes()
    with pytest.raises(InputError, match="`state` ") as error:
        evaluate(tmp_path / "s")
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert (tmp_path / "s").read_bytes() == before


def test_what_was_not_tampered_with_is_taken(evaluation, tmp_path):
    evaluate, entries = evaluation
    write(tmp_path / "s", entries)
    state = State(tmp_path / "s")
    evaluate(state)
    assert not state.advanced


@pytest.mark.parametrize(
    "about",
    [
        b"[" * 99_990,
        b"{}",
        b"7",
        b"null",
        b"[7]",
        b"[[]]",
        b'[{"bytes": -1}]',
        b'[{"bytes": 1e400}]',
        b'[{"bytes": "x"}]',
        b'[{"bytes": NaN}]',
        b'[{"bytes": ' + b"1" * 5000 + b"}]",
        b'[{"kind": "images", "bytes": 0}]',
        b'[{"kind": ["rows"], "bytes": 0}]',
        b'[{"kind": "section", "name": ["a"], "value": 1, "bytes": 0}]',
        b"\xff\xfe",
        b"",
    ],
    ids=lambda about: repr(about[:30]),
)
def test_entries_that_are_none_are_refused(about, tmp_path):
    header = state_log._SIZES.pack(
        b"part",
        len(about),
        0,
        hashlib.sha256(hashlib.sha256(state_log.MAGIC).digest() + about).digest(),
    )
    checked = header + int.to_bytes(state_log.zlib.crc32(header), 4, "little")
    (tmp_path / "s").write_bytes(state_log.MAGIC + checked + about)
    with pytest.raises(InputError, match="is no state file of an evaluation") as error:
        State(tmp_path / "s")
    assert "\n" not in str(error.value)


def old_file(path, entries, about=None, **arrays):
    """A file of version 0.1 with the same content, and what was changed."""
    found = {"tables": [], "seconds": {}, "sections": {}}
    stored = {}
    for e, data in entries:
        if e["kind"] == "identity":
            found["identity"] = e["values"]
        elif e["kind"] == "outputs":
            stored["outputs"] = data.view(e["dtype"]).reshape(e["shape"])
        elif e["kind"] == "images":
            stored["kept_rows"] = np.concatenate(
                [stored.get("kept_rows", np.empty(0, np.int64)), e["positions"]]
            )
            more = data.view(e["dtype"]).reshape(-1, *e["shape"])
            stored["kept_images"] = np.concatenate([stored.get("kept_images", more[:0]), more])
        else:
            if e["key"] not in found["tables"]:
                found["tables"].append(e["key"])
                stored[f"table{len(found['tables']) - 1}"] = tables.empty(9)
            table = stored[f"table{found['tables'].index(e['key'])}"]
            for row in data.view(tables.STORED):
                for name in tables.ROW.names:
                    table[name][row["row"]] = row[name]
            found["seconds"][e["key"]] = e["seconds"]
    for name, edit in arrays.items():
        stored[name] = edit(stored[name])
    text = json.dumps(found | (about or {})).encode()
    buffer = io.BytesIO()
    np.savez(buffer, about=np.frombuffer(text, np.uint8), **stored)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest().encode()
    path.write_bytes(old_state.MAGIC + digest + b"\n" + content)


def edited(column, value):
    def edit(table):
        table = table.copy()
        table[column][table["done"]] = value
        return table

    return edit


OLD = {
    "broken images that withstood": {"table1": edited("broken", False)},
    "a class too many": {"table1": edited("prediction", 5)},
    "a distance of NaN": {"table0": edited("linf", np.nan)},
    "a table that is too long": {"table0": lambda table: np.concatenate([table, table])},
    "a table of numbers": {"table0": lambda table: np.zeros(9)},
    "a table of another type": {"table0": lambda table: table[["done"]].copy()},
    "images of another shape": {"kept_images": lambda images: images.reshape(-1, 6)},
    "images of long numbers": {"kept_images": lambda images: images.astype("f8")},
    "a pixel of NaN": {"kept_images": lambda images: images * np.nan},
    "images of other places": {"kept_rows": lambda rows: rows + 100},
    "places as text": {"kept_rows": lambda rows: rows.astype(str)},
    "fewer places than images": {"kept_rows": lambda rows: rows[:-1]},
    "outputs in a row": {"outputs": np.ravel},
    "no identity": {"about": {"identity": {}}},
    "an identity that is a list": {"about": {"identity": []}},
    "seconds that are none": {"about": {"seconds": {"0 fgsm": None}}},
    "seconds that are a list": {"about": {"seconds": [1.0]}},
    "sections that are a list": {"about": {"sections": [1]}},
    "more tables than there are": {"about": {"tables": ["a"] * 9}},
    "tables that are a number": {"about": {"tables": 3}},
}


@pytest.mark.parametrize("change", OLD)
def test_files_of_version_0_1_are_checked_in_the_same_way(change, evaluation, tmp_path):
    evaluate, entries = evaluation
    old_file(tmp_path / "s", entries, **OLD[change])
    with pytest.raises(InputError, match="`state` ") as error:
        evaluate(tmp_path / "s")
    assert "\n" not in str(error.value)


def test_an_untouched_file_of_version_0_1_is_taken(evaluation, tmp_path):
    evaluate, entries = evaluation
    old_file(tmp_path / "s", entries)
    state = State(tmp_path / "s")
    evaluate(state)
    assert not state.advanced

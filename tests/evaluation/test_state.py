"""Evaluations that are stopped and resumed: equal bits, and what is refused."""

import dataclasses
import itertools
import os
import shutil
import signal
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf import files, reports
from soar_tf.attacks import autoattack
from soar_tf.errors import InputError
from soar_tf.evaluation import State, kept, parts, progress
from soar_tf.evaluation import state as evaluation_state
from soar_tf.evaluation.state_log import MAGIC, StateLog
from soar_tf.reports import output

SHORT = tuple(
    (name, cls, {**own, ("queries" if name == "square" else "steps"): 4})
    for name, cls, own in autoattack.VERSIONS["standard"]
)
ATTACKS = ("fgsm:epsilon=0.04", "autoattack:epsilon=0.06")
OPTIONS = {"batch_size": 5, "seed": 2, "uint8": True, "keep": 3}


class Killed(BaseException):
    """Like a signal: nothing may catch it."""


@pytest.fixture(autouse=True)
def short_and_batch_by_batch(monkeypatch):
    monkeypatch.setitem(autoattack.VERSIONS, "standard", SHORT)
    monkeypatch.setattr(progress, "_WITHIN_A_BATCH", np.inf)


@pytest.fixture
def network():
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [
            keras.Input((6, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(12, "tanh", kernel_initializer="he_normal"),
            keras.layers.Dense(5, kernel_initializer="he_normal"),
        ]
    )


@pytest.fixture
def data(network):
    x = np.random.default_rng(4).uniform(0, 1, (17, 6, 4, 1)).astype("float32")
    y = np.argmax(network(x), axis=1)
    y[3] = (y[3] + 1) % 5
    return x, y


def same(one, two):
    """Every figure and array but the times, bit for bit."""
    for name in ("n", "clean_accuracy", "worst_case_accuracy", "uint8_worst_case_accuracy"):
        assert getattr(one, name) == getattr(two, name)
    for first, second in zip(one.attacks, two.attacks, strict=True):
        np.testing.assert_array_equal(first.robust, second.robust)
        assert [s["robust_accuracy"] for s in first.stages] == [
            s["robust_accuracy"] for s in second.stages
        ]
    for field in dataclasses.fields(one.examples):
        a, b = getattr(one.examples, field.name), getattr(two.examples, field.name)
        np.testing.assert_array_equal(a, b)
    assert list(one.kept) == list(two.kept)
    for row, image in one.kept.items():
        np.testing.assert_array_equal(image, two.kept[row])


def always_saved(path, sizes=None):
    """A state that writes after every batch, which the throttle would not; notes its sizes."""
    state = State(path)
    write = state.save

    def save(always=False):
        write(always=True)
        if sizes is not None:
            sizes.append(path.stat().st_size)

    state.save = save
    return state


def test_killed_at_every_batch_it_ends_with_the_same_bits(network, data, tmp_path):
    evaluator = soar_tf.evaluation.Evaluator(network, ATTACKS, **OPTIONS)
    whole = evaluator(*data)
    assert 0 < whole.worst_case_accuracy < whole.clean_accuracy < 1
    assert len(whole.kept) == 3
    copies = []

    def copy(call):
        copies.append(tmp_path / f"{len(copies)}.state")
        shutil.copy(tmp_path / "whole.state", copies[-1])

    state = always_saved(tmp_path / "whole.state")
    same(evaluator(*data, progress=copy, state=state), whole)
    assert len(copies) >= 10
    for path in copies:
        batches = []
        same(evaluator(*data, progress=batches.append, state=path), whole)
        assert len(batches) < len(copies)
    again = []
    same(evaluator(*data, progress=again.append, state=path), whole)
    assert again == []  # complete: nothing is attacked


def test_what_ends_an_evaluation_costs_no_finished_batch(network, data, tmp_path):
    def kill(call):
        raise Killed

    path = tmp_path / "killed.state"
    for done in (5, 10, 15):
        with pytest.raises(Killed):
            soar_tf.evaluate(network, *data, ATTACKS, progress=kill, state=path, **OPTIONS)
        table = State(path).table(f"0 {ATTACKS[0]}", 17)
        assert table["done"].sum() == done


def test_another_batch_size_may_go_on(network, data, tmp_path):
    def kill(call):
        raise Killed

    attacks = ["fgsm:epsilon=0.04", "pgd5:epsilon=0.05"]
    arguments = {"seed": 2, "state": tmp_path / "s"}
    with pytest.raises(Killed):
        soar_tf.evaluate(network, *data, attacks, progress=kill, batch_size=5, **arguments)
    other = soar_tf.evaluate(network, *data, attacks, batch_size=16, **arguments)
    whole = soar_tf.evaluate(network, *data, attacks, batch_size=5, seed=2)
    for one, two in zip(other.attacks, whole.attacks, strict=True):
        np.testing.assert_array_equal(one.robust, two.robust)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": 0.5}, "images differs"),
        ({"y": 1}, "labels differs"),
        ({"network": 1}, "network differs"),
        ({"attacks": ["fgsm:epsilon=0.06"]}, "attacks differs .*epsilon=0.05.*epsilon=0.06"),
        ({"seed": 3}, r"seed differs \(2 there, 3 here\)"),
        ({"uint8": False}, "rounding to uint8 differs"),
        ({"keep": 0}, "images kept differs"),
        ({"tensorflow": "1.0"}, "tensorflow differs"),
        ({"attacks of": 2}, r"version of the attacks differs \(1 there, 2 here\)"),
    ],
)
def test_a_foreign_state_is_refused(change, sentence, network, data, tmp_path, monkeypatch):
    (x, y), attacks, options = data, ["fgsm:epsilon=0.05"], dict(OPTIONS)
    soar_tf.evaluate(network, x, y, attacks, state=tmp_path / "s", **options)
    before = (tmp_path / "s").read_bytes()
    if "x" in change:
        x = np.concatenate([x[:-1], x[-1:] * 0.5])
    elif "y" in change:
        y = np.concatenate([y[:-1], (y[-1:] + 1) % 5])
    elif "network" in change:
        head = network.layers[-1]
        head.set_weights([w * 1.001 for w in head.get_weights()])
    elif "tensorflow" in change:
        monkeypatch.setattr(tf, "__version__", "1.0")
    elif "attacks of" in change:
        monkeypatch.setattr(evaluation_state, "_ATTACKS", change["attacks of"])
    else:
        attacks = change.pop("attacks", attacks)
        options |= change
    with pytest.raises(
        InputError, match=f"belongs to another evaluation: {sentence}.*another file"
    ):
        soar_tf.evaluate(network, x, y, attacks, state=tmp_path / "s", **options)
    assert (tmp_path / "s").read_bytes() == before


def test_a_network_without_weights_is_told_apart_by_its_outputs(data, tmp_path):
    x, y = data
    y = y % 2
    for scale, refused in ((1.0, False), (1.0, False), (1.1, True)):

        def network(x, scale=scale):
            margin = scale * (tf.reduce_mean(tf.reshape(x, [tf.shape(x)[0], -1]), axis=1) - 0.5)
            return tf.stack([-margin, 3 * margin], axis=1)

        if refused:
            with pytest.raises(InputError, match="the network's outputs differ"):
                soar_tf.evaluate(network, x, y, ["fgsm"], state=tmp_path / "s")
        else:
            soar_tf.evaluate(network, x, y, ["fgsm"], state=tmp_path / "s")


def test_damaged_files_are_refused(network, data, tmp_path):
    state = State(tmp_path / "s")
    state.save(always=True)
    soar_tf.evaluate(network, *data, ["fgsm"], state=state)
    state.set_section("more", 1)
    good = (tmp_path / "s").read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 4] ^= 1
    cases = {
        "damaged: its checksum is wrong": (bytes(flipped),),
        "is no state file": (b"", b"PK\x03\x04", good[50:], b"soar-tf evaluation state 9 x\n"),
    }
    for sentence, contents in cases.items():
        for content in contents:
            (tmp_path / "s").write_bytes(content)
            with pytest.raises(InputError, match=sentence):
                State(tmp_path / "s")
    with pytest.raises(InputError, match="must be a regular file. Received: a folder"):
        State(tmp_path)
    with pytest.raises(InputError, match="its folder does not exist"):
        State(tmp_path / "none" / "s")


def test_state_files_only_grow_and_hold_numbers_and_json(network, data, tmp_path):
    contents = []

    def look(call):
        contents.append((tmp_path / "s").read_bytes())

    evaluator = soar_tf.evaluation.Evaluator(network, ["fgsm:epsilon=0.05"], batch_size=2, keep=2)
    evaluator(*data, progress=look, state=always_saved(tmp_path / "s"))
    assert len(set(contents)) == len(contents) == 8  # 16 images that are classified correctly
    for earlier, later in itertools.pairwise(contents):
        assert later.startswith(earlier)
    rows = [
        entry["bytes"] // np.dtype([tuple(pair) for pair in entry["columns"]]).itemsize
        for entry, _ in StateLog.open(tmp_path / "s").entries()
        if entry["kind"] == "rows"
    ]
    assert rows == [2] * 8  # each row once


def report_bytes(result, data, folder):
    """Everything that a report keeps of a result."""
    place = output.ReportPlace(folder)
    folder.mkdir()
    columns = result.examples.columns()
    reports.write_npz(place.folder / "table.npz", columns)
    reports.write_csv(place.folder / "table.csv", columns)
    images = output._adversarial(result, lambda rows: data[0][rows])
    reports.write_npz(place.folder / "adversarial.npz", images)
    files.write_json(place.folder / "report.json", result.to_dict())
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_a_kill_between_any_two_writes_leaves_the_same_report(network, data, tmp_path, monkeypatch):
    # The bytes of a report include times.
    monkeypatch.setattr(parts, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))
    attacks = ["fgsm:epsilon=0.04", "pgd3:epsilon=0.06"]
    evaluator = soar_tf.evaluation.Evaluator(network, attacks, batch_size=4, keep=100, seed=2)
    sizes = []
    whole = evaluator(*data, state=always_saved(tmp_path / "whole", sizes))
    content = (tmp_path / "whole").read_bytes()
    expected = report_bytes(whole, data, tmp_path / "report")
    assert 3 < len(whole.kept) < 17
    for number, size in enumerate(sorted(set(sizes))):
        # At the end of a write; and in the middle of the one after it.
        for cut in {size, min(size + 200, len(content))}:
            (tmp_path / "s").write_bytes(content[:cut])
            found = evaluator(*data, state=always_saved(tmp_path / "s"))
            folder = tmp_path / f"report{number}-{cut}"
            assert report_bytes(found, data, folder) == expected
            assert (tmp_path / "s").read_bytes() == content


def test_kept_images_are_in_the_file_where_there_is_one(network, data, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "MEMORY_BYTES", 0)  # none may stay in memory
    evaluator = soar_tf.evaluation.Evaluator(network, ["fgsm:epsilon=0.05"], batch_size=4, keep=100)
    state = State(tmp_path / "s")
    found, inside = evaluator(*data, state=state), evaluator(*data)
    assert isinstance(found.kept, kept.Kept) and len(found.kept) > 3
    assert not any(isinstance(place, np.ndarray) for place in found.kept._places.values())
    assert list(found.kept) == list(inside.kept)
    for row, image in inside.kept.items():
        np.testing.assert_array_equal(found.kept[row], image)
    (tmp_path / "s").unlink()  # the images are still there, and can be written again
    state.set_section("more", 1)
    again = State(tmp_path / "s")
    for row, image in inside.kept.items():
        np.testing.assert_array_equal(again.kept[row], image)
    assert same(evaluator(*data, state=again), inside) is None and not again.advanced


def test_a_file_of_version_0_1_is_taken_up(tmp_path, monkeypatch):
    path = tmp_path / "version1.state"
    shutil.copy(Path(__file__).parent / "files" / "version1.state", path)
    network = keras.Sequential(
        [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    kernel = (np.arange(12) * 7 % 11 / 7 - 0.6).reshape(4, 3).astype("float32")
    network.set_weights([kernel, np.zeros(3, "float32")])
    x = (np.arange(28) * 5 % 17 / 17).reshape(7, 2, 2, 1).astype("float32")
    y = np.array([0, 0, 0, 0, 1, 1, 1])
    attacks = ["fgsm:epsilon=0.0625", "pgd3:epsilon=0.125"]
    evaluator = soar_tf.evaluation.Evaluator(network, attacks, batch_size=3, keep=3, adaptive=False)
    state = State(path)
    assert state.sections == {"masking": {"belongs": 1, "report": [1, 2]}}
    assert list(state.kept) == [5] and state.kept[5].shape == (2, 2, 1)
    assert state.seconds[f"0 {attacks[0]}"] == pytest.approx(18.003064805)
    for name, version in (("keras", "3.15.1"), ("numpy", "2.4.6")):
        assert state._identity[name] == version
    # It was written with these versions; another one is refused, which is not the point here.
    state._identity |= {module.__name__: module.__version__ for module in (tf, keras, np)}
    batches = []
    found = evaluator(x, y, state=state, progress=batches.append)
    same(found, evaluator(x, y))
    assert [batch.name for batch in batches] == [attacks[1]]  # the last of four batches
    assert path.read_bytes().startswith(MAGIC)
    again = State(path)
    assert again.seconds == state.seconds and again.sections == state.sections
    same(evaluator(x, y, state=again), found)
    assert not again.advanced


def test_a_callback_that_raises_within_a_batch_ends_it(network, data, monkeypatch):
    monkeypatch.setattr(progress, "_WITHIN_A_BATCH", 0.0)
    seen = []

    def kill(call):
        seen.append(call)
        if len(seen) == 3:
            raise Killed

    with pytest.raises(Killed):
        soar_tf.evaluate(network, *data, ["pgd20:epsilon=0"], progress=kill)
    assert [call.done for call in seen] == [0, 0, 0]


def test_ctrl_c_ends_a_batch_at_its_next_pass(network, data, monkeypatch):
    monkeypatch.setattr(progress, "_WITHIN_A_BATCH", 0.0)
    seen = []

    def interrupt(call):
        seen.append(call)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):  # a million steps would take minutes
        soar_tf.evaluate(network, *data, ["pgd1000000:epsilon=0"], progress=interrupt)
    assert {call.done for call in seen} == {0}


def test_rounding_to_uint8_is_counted_for_what_was_found():
    # One pixel, two classes, split at 0.5 + 0.25/255: an image at 127/255 is broken by moving
    # beyond the threshold; rounding moves the result back or not.
    threshold = (127 + 0.75) / 255

    def split(x):
        margin = 1000.0 * (tf.reshape(x, [-1]) - threshold)
        return tf.stack([-margin, margin], axis=1)

    x = np.full((1, 1, 1, 1), 127 / 255, "float32")
    for epsilon, rounded in ((0.8 / 255, 0.0), (0.4 / 255, 1.0)):
        result = soar_tf.evaluate(
            split, x, np.zeros(1, int), [f"fgsm:epsilon={epsilon}"], uint8=True
        )
        broken = epsilon > 0.75 / 255
        assert result.worst_case_accuracy == (0.0 if broken else 1.0)
        assert result.uint8_worst_case_accuracy == rounded
    # Broken before rounding (127.9 is above 127.75), and 127.7 beyond a threshold of 127.6 is not
    # what 8 bits can hold: 128 is. Below half a step the image rounds back to where it was.
    threshold = (127 + 0.3) / 255
    result = soar_tf.evaluate(split, x, np.zeros(1, int), [f"fgsm:epsilon={0.4 / 255}"], uint8=True)
    assert result.worst_case_accuracy == 0.0 and result.uint8_worst_case_accuracy == 1.0
    assert result.attacks[0].uint8_accuracy == 1.0 and result.to_dict()["uint8_worst_case_accuracy"]


def test_the_examples_say_who_broke_each(network, data):
    result = soar_tf.evaluate(network, *data, ATTACKS, **OPTIONS)
    table = result.examples.columns()
    fgsm, auto = (attack.robust for attack in result.attacks)
    np.testing.assert_array_equal(table["index"], np.arange(17))
    np.testing.assert_array_equal(table["clean_correct"], result.clean)
    np.testing.assert_array_equal(table["broken_by"] == "clean", ~result.clean)
    np.testing.assert_array_equal(table["broken_by"] == ATTACKS[0], result.clean & ~fgsm)
    np.testing.assert_array_equal(table["broken_by"] == "", fgsm & auto)
    late = np.char.startswith(table["broken_by"], ATTACKS[1] + "/")
    np.testing.assert_array_equal(late, fgsm & ~auto)
    withstood = table["broken_by"] == ""
    assert np.isnan(table["linf"][withstood]).all()
    assert (table["adversarial_prediction"][withstood] == -1).all()
    for row, image in result.kept.items():
        change = image - data[0][row]
        assert table["linf"][row] == pytest.approx(np.abs(change).max(), abs=1e-7)
        assert table["l2"][row] == pytest.approx(np.linalg.norm(change), rel=1e-5)
        logits = network(image[None]).numpy()[0]
        assert table["adversarial_prediction"][row] == logits.argmax() != data[1][row]
        loss = np.log(np.exp(logits.astype(float)).sum()) - logits[data[1][row]]
        assert table["adversarial_loss"][row] == pytest.approx(loss, rel=1e-4)


def test_kept_images_of_some_positions_alone():
    images = kept.Kept()
    for position in (5, 2, 9):
        images.add(position, np.full((2, 2, 1), position, np.float32))
    chosen = images.of([9, 5, 1])
    assert list(chosen) == [5, 9] and chosen[9].max() == 9


def test_the_adaptive_attack_may_follow_on_a_state_without(network, data, tmp_path):
    def found(adaptive):
        options = {**OPTIONS, "keep": 17, "adaptive": adaptive, "state": tmp_path / "s"}
        return soar_tf.evaluate(network, *data, ATTACKS[:1], **options)

    plain = found(False)
    both = found("short")
    assert [attack.name for attack in both.attacks] == [ATTACKS[0], "adaptive"]
    np.testing.assert_array_equal(both.attacks[0].robust, plain.attacks[0].robust)
    assert set(plain.kept) <= set(both.kept)
    same(found(False), plain)  # with its own adversarial images alone
    with pytest.raises(InputError, match="another evaluation: adaptive attack differs"):
        found(True)

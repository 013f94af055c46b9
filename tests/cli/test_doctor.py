"""`soar-tf doctor`: what it finds here, and what it says when something is wrong."""

import importlib.metadata

import keras
import numpy as np
import pytest
import tensorflow as tf

from soar_tf import doctor
from soar_tf.doctor import accelerators
from soar_tf.ops import gradients


def test_everything_works_here(run_cli, cifar10_folder):
    result = run_cli("doctor", "--json", "--data-dir", cifar10_folder)
    assert result.json["healthy"]
    found = {finding["name"]: finding for finding in result.json["findings"]}
    assert found["tensorflow"]["found"] == importlib.metadata.version("tensorflow")
    assert found["keras"]["found"] == keras.__version__
    assert found["data sets"]["found"].startswith("digits, cifar10 (in ")
    assert set(doctor.SELF_TEST) <= set(found)
    if not accelerators.found():
        assert found["accelerators"]["found"].startswith("none")


def test_a_wrong_gradient_is_a_problem(run_cli, monkeypatch):
    right = gradients.input_gradient
    monkeypatch.setattr(
        gradients, "input_gradient", lambda *a: (right(*a)[0], 1.001 * right(*a)[1])
    )
    result = run_cli("doctor", expect=1)
    assert "problem  gradients               the input gradient is off by" in result.stdout
    assert "-> do not trust results from here" in result.stdout
    assert "problems." in result.stdout


def test_a_step_that_is_one_percent_off_is_a_problem(monkeypatch):
    loss, penalty, size = doctor.STORED_STEP
    monkeypatch.setattr(doctor, "soar_step", lambda: (loss, 1.01 * penalty, size))
    finding = doctor._tested("SOAR step", doctor._soar_step)
    assert finding.status == "problem" and "a step of SOAR is off by" in finding.found


@pytest.mark.parametrize(
    ("change", "name", "status", "advice"),
    [
        (
            lambda m: m.setattr(doctor, "_version", lambda name: "2.30.0"),
            "tensorflow",
            "warning",
            "tested are 2.21 to below 2.22: pip install 'soar-tf'",
        ),
        (
            lambda m: m.setattr(doctor, "_version", lambda name: "2.21.0"),
            "two TensorFlows",
            "problem",
            "pip uninstall tensorflow tensorflow-cpu, then pip install tensorflow",
        ),
        (
            lambda m: m.setattr(keras.config, "floatx", lambda: "float16"),
            "keras settings",
            "problem",
            "edit ~/.keras/keras.json",
        ),
        (
            lambda m: m.setattr(doctor, "MINIMUM_FREE_BYTES", 2**80),
            "disk",
            "warning",
            "choose a --workdir on another disk",
        ),
        (
            lambda m: (
                m.setattr(tf.config, "list_physical_devices", lambda _: [])
                or m.setattr(doctor, "Path", lambda _: _Present())
            ),
            "unused GPU",
            "warning",
            "pip install 'soar-tf[gpu]'",
        ),
    ],
)
def test_what_to_do(change, name, status, advice, monkeypatch):
    monkeypatch.setattr(doctor, "SELF_TEST", {})
    change(monkeypatch)
    findings = {finding.name: finding for finding in doctor.examine()}
    assert (findings[name].status, findings[name].advice) == (status, advice)


@pytest.fixture
def processor(monkeypatch):
    """The processor in the place of an accelerator."""
    monkeypatch.setattr(accelerators, "found", lambda: ["/device:CPU:0"])
    monkeypatch.setattr(doctor, "SELF_TEST", {"attack": doctor._attack})


def test_an_accelerator_is_tried_in_every_mode(processor):
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    findings = list(doctor._accelerators())
    assert [finding.name for finding in findings] == [
        "attack, CPU:0",
        "plain, CPU:0",
        "XLA, CPU:0",
        "mixed precision, CPU:0",
        "TF32, CPU:0",
    ]
    assert [finding.status for finding in findings] == ["ok"] * 5, findings
    assert tf.config.experimental.tensor_float_32_execution_enabled() == before


@pytest.mark.parametrize(
    ("mode", "trap"),
    [
        ("TF32", "NVIDIA_TF32_OVERRIDE=0"),
        ("XLA", "jit_compile=False"),
        ("mixed precision", "--precision float32"),
        ("plain", "do not trust"),
    ],
)
def test_the_trap_is_named(mode, trap, processor, monkeypatch):
    monkeypatch.setattr(accelerators, "weight_change", lambda device, mode: np.ones(3))
    wrong = {mode: 0.5}
    monkeypatch.setattr(
        accelerators, "compare", lambda device, mode, reference: wrong.get(mode.name, 0.0)
    )
    bad = [finding for finding in doctor._accelerators() if finding.status != "ok"]
    assert [finding.name for finding in bad] == [f"{mode}, CPU:0"]
    assert bad[0].status == "problem" and trap in bad[0].advice and "5e-01" in bad[0].found


def test_a_curvature_of_rounded_gradients_is_noticed(monkeypatch):
    """TF32 keeps 10 bits of each factor; rounding the layers' inputs so is what it does."""
    reference = accelerators.weight_change("/device:CPU:0", accelerators.MODES[0])
    right = tf.matmul

    def rounded(a, b, *args, **kwargs):
        parts = [tf.bitcast(tf.bitcast(t, tf.int32) & ~0x1FFF, tf.float32) for t in (a, b)]
        parts = [t + tf.stop_gradient(p - t) for t, p in zip((a, b), parts, strict=True)]
        return right(*parts, *args, **kwargs)

    monkeypatch.setattr(tf, "matmul", rounded)
    monkeypatch.setattr(tf.linalg, "matmul", rounded)
    mode = accelerators.MODES[-1]
    assert accelerators.compare("/device:CPU:0", mode, reference) > mode.tolerance


def test_a_mode_that_fails_is_a_problem(processor, monkeypatch):
    def fail(device, mode, reference):
        raise RuntimeError("no kernel image\nmore")

    monkeypatch.setattr(accelerators, "weight_change", lambda device, mode: np.ones(3))
    monkeypatch.setattr(accelerators, "compare", fail)
    last = list(doctor._accelerators())[-1]
    assert (last.status, last.found) == ("problem", "no kernel image")


class _Present:
    def exists(self):
        return True


def test_no_data_sets_where_they_should_be(tmp_path):
    finding = doctor._datasets(tmp_path)
    assert finding.status == "warning" and f"none in {tmp_path}" in finding.found


def test_the_known_numbers_are_those_of_a_sine():
    expected = np.sin([1.7, 3.4, 5.1, 6.8]).reshape(2, 2)
    np.testing.assert_allclose(doctor._waves(2, 2), expected, atol=1e-6)

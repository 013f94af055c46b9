"""A network is judged in the ball that it was trained for, wherever nothing else is said."""

import csv

import keras
import pytest

import soar_tf
from soar_tf.errors import InputError
from soar_tf.runs import models
from soar_tf.threat_model import ThreatModel

BALLS = {"l2": 0.6, "l1": 3.0}
TEXTS = {"l2": "L2 0.6", "l1": "L1 3"}


@pytest.fixture(scope="module", params=BALLS)
def run(request, tmp_path_factory):
    """A network trained in an l2 or an l1 ball: its folder and what `train` printed."""
    from click.testing import CliRunner

    from soar_tf.cli.main import main

    norm, folder = request.param, tmp_path_factory.mktemp("runs") / request.param
    result = CliRunner().invoke(
        main,
        [
            "train",
            "--method",
            "adversarial",
            "--method-arg",
            f"norm={norm}",
            "--method-arg",
            f"epsilon={BALLS[norm]}",
            "--method-arg",
            "steps=2",
            "--dataset",
            "digits",
            "--network",
            "mlp",
            "--network-arg",
            "width=0.25",
            "--epochs",
            "3",
            "--verbose",
            "0",
            "--evaluate",
            "100",
            "--attack",
            "pgd5",
            "--validation-attack",
            "pgd3",
            "--workdir",
            str(folder),
        ],
    )
    assert result.exit_code == 0, result.output
    return norm, folder, result.stdout


def robust(folder, digits, norm, attack, count=100, split="test"):
    """What the Python API measures in the right ball."""
    images = digits[split].take(count)
    network = keras.saving.load_model(folder / "model.keras", compile=False)
    named = f"{attack}:norm={norm},epsilon={BALLS[norm]}"
    found = soar_tf.evaluate(network, images.float_images(), images.labels, [named])
    return found.attacks[0].robust_accuracy


def test_the_table_after_training(run, digits):
    norm, folder, printed = run
    expected = robust(folder, digits, norm, "pgd5")
    assert f"100 test images of digits, {TEXTS[norm]}, pixels in [0, 1]." in printed
    assert f"{100 * expected:.1f} %" in printed
    in_linf = soar_tf.evaluate(
        keras.saving.load_model(folder / "model.keras", compile=False),
        digits["test"].take(100).float_images(),
        digits["test"].take(100).labels,
        ["pgd5:epsilon=0.15"],
    )
    assert in_linf.attacks[0].robust_accuracy != expected  # the two balls can be told apart


def test_the_validation_attack(run, digits):
    norm, folder, _ = run
    with open(folder / "log.csv", newline="") as file:
        logged = float(list(csv.DictReader(file))[-1]["val_robust_accuracy"])
    assert logged == pytest.approx(robust(folder, digits, norm, "pgd3", 1000, "validation"))


def test_evaluate_and_its_curve(run, digits, run_cli):
    norm, folder, _ = run
    report = run_cli(
        "evaluate",
        folder,
        "--limit",
        100,
        "--attack",
        "pgd5",
        "--curve",
        "--curve-attack",
        "pgd3",
        "--json",
    ).json
    pgd = report["attacks"][0]
    assert (pgd["norm"], pgd["epsilon"]) == (norm, BALLS[norm])
    assert pgd["robust_accuracy"] == robust(folder, digits, norm, "pgd5")
    assert report["curve"]["norm"] == norm and BALLS[norm] in report["curve"]["epsilons"]
    other = run_cli(
        "evaluate", folder, "--limit", 100, "--attack", "pgd5", "--norm", "linf", "--json"
    ).json["attacks"][0]
    assert (other["norm"], other["epsilon"]) == ("linf", 0.15)
    smaller = run_cli(
        "evaluate", folder, "--limit", 100, "--attack", "pgd5", "--epsilon", "0.25", "--json"
    ).json["attacks"][0]
    assert (smaller["norm"], smaller["epsilon"]) == (norm, 0.25)


def test_transfer(run, digits, run_cli, tmp_path):
    norm, folder, _ = run
    soar_tf.networks.mlp(width=0.25).save(tmp_path / "source.keras")
    report = run_cli(
        "transfer",
        "--source",
        tmp_path / "source.keras",
        "--target",
        folder,
        "--attack",
        "pgd3",
        "--limit",
        50,
        "--output",
        tmp_path / "transfer",
        "--json",
    ).json
    assert (report["norm"], report["epsilon"]) == (norm, BALLS[norm])


def test_masking(run, run_cli):
    norm, folder, _ = run
    command = ("evaluate", folder, "--limit", 40, "--attack", "pgd3", "--masking")
    masking = run_cli(*command, "--json").json["masking"]
    assert (masking["norm"], masking["epsilon"]) == (norm, BALLS[norm])
    assert masking["verdict"] != "fail"


def test_callbacks_take_the_methods_ball(digits):
    keras.utils.set_random_seed(0)
    images = digits["train"].take(64)
    x, y = images.float_images(), images.labels
    method = soar_tf.methods.Adversarial(norm="l2", epsilon=0.6, steps=1)
    model = soar_tf.RobustModel(soar_tf.networks.mlp(width=0.25), method)
    model.compile("sgd")
    own = soar_tf.callbacks.RobustAccuracy((x, y), "pgd3")
    other = soar_tf.callbacks.RobustAccuracy((x, y), "pgd3:norm=linf,epsilon=0.1", name="linf")
    masking = soar_tf.callbacks.GradientMasking((x, y), steps=2)
    history = model.fit(x, y, verbose=0, callbacks=[own, other, masking]).history
    for attack, key in (
        ("pgd3:norm=l2,epsilon=0.6", "val_pgd3_accuracy"),
        ("pgd3:norm=linf,epsilon=0.1", "val_linf_accuracy"),
    ):
        expected = soar_tf.evaluate(model.network, x, y, [attack]).attacks[0].robust_accuracy
        assert history[key] == [pytest.approx(expected)]
    assert {attack.threat_model for _, attack in masking.evaluator.attacks} == {
        ThreatModel("l2", 0.6)
    }


def test_what_is_given_wins_and_what_is_unclear_is_refused():
    def run_of(**arguments):
        config = {"method": "adversarial", "method_args": arguments, "dataset": "cifar10"}
        return models.LoadedModel("run", None, (8, 8, 1), 10, config=config)

    l2, linf = run_of(norm="l2", epsilon=0.25), run_of(epsilon="ramp(0, 4/255, epochs=2)")
    plain = models.LoadedModel("plain", None, (8, 8, 1), 10)
    standard = models.LoadedModel("run", None, (8, 8, 1), 10, config={"method": "standard"})
    known = models.threat_model
    assert known([l2], "cifar10") == ThreatModel("l2", 0.25)
    assert known([linf], "cifar10") == ThreatModel("linf", 4 / 255)
    assert known([plain], "cifar10") == known([standard], "cifar10") == ThreatModel("linf", 8 / 255)
    assert known([l2], "cifar10", epsilon=1) == ThreatModel("l2", 1.0)
    assert known([l2], "cifar10", norm="linf") == ThreatModel("linf", 8 / 255)
    assert known([plain], "cifar10", norm="l1") == ThreatModel("l1", 12.0)
    assert known([l2, plain, l2], "cifar10") == ThreatModel("l2", 0.25)
    with pytest.raises(InputError, match="trained for L2 0.25 and Linf 4/255"):
        known([l2, linf], "cifar10")
    with pytest.raises(InputError, match="`epsilon` is needed with norm 'l2': data set 'digits'"):
        known([plain], "digits", norm="l2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "l3"}, "Unknown `norm` 'l3'"),
        ({"epsilon": 8}, "`epsilon` must be >= 0 and <= 1. Received: 8"),
        ({"norm": "l2", "epsilon": -1}, "`epsilon` must be >= 0. Received: -1"),
        ({"bounds": (1, 0)}, r"`bounds` must be \(low, high\), low < high"),
    ],
)
def test_a_threat_model_that_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        ThreatModel(**arguments)


def test_an_l2_method_without_a_usual_radius_is_refused_before_training(run_cli, tmp_path):
    refused = run_cli(
        "train",
        "--method",
        "adversarial",
        "--method-arg",
        "norm=l2",
        "--dataset",
        "digits",
        "--workdir",
        tmp_path / "run",
        expect=2,
    )
    assert "`epsilon` is needed with norm 'l2'" in refused.stderr
    assert not (tmp_path / "run").exists()

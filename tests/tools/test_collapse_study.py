"""What `benchmarks.collapse` reads out of a training's epochs."""

import pytest

from benchmarks import collapse, study


def epochs(accuracies, alarms=()):
    rows = [{"pgd20": accuracy, "alarm_batch": -1.0} for accuracy in accuracies]
    for epoch, batch in alarms:
        rows[epoch - 1]["alarm_batch"] = batch
    return rows


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.1, 0.2, 0.3], None),
        ([0.1, 0.3, 0.1, 0.0], 3),
        # It came back: the second fall counts.
        ([0.1, 0.3, 0.1, 0.25, 0.05], 5),
        ([0.0, 0.0], None),
    ],
)
def test_the_epoch_after_which_accuracy_stays_low(accuracies, expected):
    assert collapse.collapse(epochs(accuracies)) == expected


def test_the_alarms_epoch():
    assert collapse.alarm(epochs([0.1] * 4)) is None
    assert collapse.alarm(epochs([0.1] * 4, [(3, 0.0), (4, 5.0)])) == 3
    assert collapse.alarm([{"pgd20": 0.1}]) is None  # a method without a single step


def test_the_testbed_has_one_convolution_of_four_filters():
    network = collapse.one_convolution((32, 32, 3), 10)
    assert network.count_params() == (27 + 1) * 4 + (32 * 32 * 4 + 1) * 10


def test_every_variant_can_be_built():
    for method, arguments in collapse.VARIANTS.values():
        built = collapse.soar_tf.methods.get(method, epsilon="16/255", **arguments)
        assert built.threat_model.epsilon == 16 / 255


def test_rows_of_a_log(tmp_path):
    (tmp_path / "log.csv").write_text("phase,epoch,loss\nfast,1,0.5\nfast,2,\n")
    rows = study.rows_of(tmp_path / "log.csv")
    assert rows == [
        {"phase": "fast", "epoch": 1.0, "loss": 0.5},
        {"phase": "fast", "epoch": 2.0, "loss": None},
    ]

"""The table that a training run ends with."""

import shutil

import keras

from soar_tf.cli.train import summary_table
from soar_tf.models import loading
from soar_tf.reports.summary import attack_run


def test_the_adaptive_attack_has_a_column_where_a_network_hides_its_gradients(
    tiny_run, tmp_path, digits
):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    network = loading.load_network(folder / "model.keras")
    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)][-1]
    dense.set_weights([1e5 * weight for weight in dense.get_weights()])  # a saturated softmax
    network.save(folder / "model.keras")
    found = attack_run(folder, digits, limit=24, attacks=("fgsm:epsilon=0.15",))
    assert found["columns"] == ["clean", "fgsm:epsilon=0.15", "adaptive"]
    assert found["threats"] == {"fgsm:epsilon=0.15": "Linf 0.15", "adaptive": "Linf 0.15"}
    standard, soar = found["rows"]
    assert standard["adaptive"] is None
    assert soar["adaptive"] < soar["fgsm:epsilon=0.15"]
    note = found["note"].splitlines()
    assert note[0].startswith("Robust accuracy is an upper bound")
    assert "24 images leave a wide interval" in note[0]
    assert any(line.startswith("soar: ") for line in note[1:])
    table = summary_table(found).splitlines()
    assert table[0].split() == ["accuracy", "clean", "fgsm:epsilon=0.15", "adaptive"]
    assert table[2].split()[-1] == "-" and table[3].split()[-1] == "%"

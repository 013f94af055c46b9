"""Writes `tests/earlier/files` with version 0.1.0 of the package, for `test_earlier_versions.py`.

Run once, with an interpreter whose `soar_tf` is that version (commit 99d900d), in an empty folder:
`python write.py FOLDER`. The files are committed; nothing is written anew with a later version.

- `run/`: SOAR on 64 digits, stopped after the first of two epochs of its second phase.
- `finished/`: the same run, never stopped: `model.keras`, `standard.keras`, `saved_model/`,
  `log.csv`, `manifest.json`, `config.toml`.
- `evaluation.state`: an evaluation of the finished network that was stopped after three batches of
  its second attack; `evaluation.json`: what it ends with; `robust.npz`: which images survive.
"""

import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
from click.testing import CliRunner

import soar_tf
from soar_tf.cli.main import main
from soar_tf.experiments import checkpoints

RUN = (
    *("train", "--method", "soar", "--dataset", "digits", "--network", "mlp"),
    *("--network-arg", "width=0.05", "--limit", "64", "--batch-size", "32", "--seed", "5"),
    *("--pretrain-epochs", "1", "--epochs", "2", "--verbose", "0", "--evaluate", "0"),
)
ATTACKS = ("fgsm", "pgd:steps=3,restarts=2", "square:queries=20")


def write(folder):
    folder.mkdir(parents=True)
    finished = folder / "finished"
    _call(*RUN, "--workdir", str(finished))
    saved = checkpoints.save

    def save(path, model, progress, *rest):
        saved(path, model, progress, *rest)
        if progress["phase"] == 1 and progress["epoch"] == 1:
            raise KeyboardInterrupt

    checkpoints.save = save
    CliRunner().invoke(main, [*RUN, "--workdir", str(folder / "run")])
    checkpoints.save = saved
    shutil.rmtree(finished / "checkpoints", ignore_errors=True)
    for run in (finished, folder / "run"):
        (run / ".lock").unlink(missing_ok=True)
    _evaluate(folder)


def _evaluate(folder):
    network = str(folder / "finished" / "model.keras")
    test = soar_tf.datasets.load("digits", splits=("test",))["test"].take(48)
    x, y = test.float_images(), test.labels

    def stop(progress):
        stop.calls += 1
        if (folder / "evaluation.state").exists() and stop.calls >= 5:
            raise KeyboardInterrupt

    stop.calls = 0
    arguments = {"attacks": ATTACKS, "batch_size": 12, "seed": 7, "uint8": True}
    model = keras.saving.load_model(network)
    try:
        soar_tf.evaluate(
            model, x, y, **arguments, state=str(folder / "evaluation.state"), progress=stop
        )
    except KeyboardInterrupt:
        print("stopped after", stop.calls, "calls")
    result = soar_tf.evaluate(model, x, y, **arguments)
    (folder / "evaluation.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    robust = {attack.name: attack.robust for attack in result.attacks}
    np.savez_compressed(folder / "robust.npz", clean=result.clean, **robust)


def _call(*arguments):
    result = CliRunner().invoke(main, arguments)
    if result.exit_code:
        raise SystemExit(result.output)


if __name__ == "__main__":
    write(Path(sys.argv[1]))

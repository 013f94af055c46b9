"""Every method, trained and attacked alike: `python -m benchmarks.methods --output FILE.json`.

First one standard network is trained (`--pretrain-epochs`). Methods that fine-tune, such as SOAR,
start from it (`--epochs`); the others train from scratch for as many epochs in all, Standard
included. One table: clean, PGD-20, AutoAttack, and the train step's time relative to Standard's,
measured in the same process.

On CIFAR-10: `python -m benchmarks.methods --dataset cifar10 --limit 10000 --data-dir DIR --output
methods-cifar10.json` (hours on 2 cores).
"""

import sys

from benchmarks import study
from soar_tf import methods
from soar_tf.datasets import defaults
from soar_tf.runs import presets

# Further settings of registered methods that the paper compares, or that have another regime.
MORE = {
    "adversarial-1": ["--method", "adversarial", "--method-arg", "steps=1"],
    "soar-random": ["--method", "soar", "--method-arg", "init=random"],
    "soar-zero": ["--method", "soar", "--method-arg", "init=zero"],
    "soar-batch-mean": ["--preset", "soar-batch-mean"],
    "cure-stairs": ["--method", "cure", "--method-arg", "h=stairs(0.1, 0.4, 0.8, 1.8, 3)"],
    "gradient-norm-difference": [
        "--method",
        "gradient-norm",
        "--method-arg",
        "mode=finite_difference",
    ],
}


def main(argv=None):
    """Runs the benchmark."""
    parser = study.arguments(__doc__.splitlines()[0])
    parser.add_argument("--pretrain-epochs", type=int, help="default: the data set's")
    options = parser.parse_args(argv)
    standard = (options.workdir or options.output.with_suffix(".runs")) / "pretrained"
    epochs = options.pretrain_epochs or defaults.recipe(options.dataset)["pretrain_epochs"]
    if failed := study.train(options, standard, ["--method", "standard", "--epochs", str(epochs)]):
        sys.exit(failed)
    found = study.Study(options, standard)
    variants = {name: ["--method", name] for name in methods.ALL_OBJECTS} | MORE
    for name, arguments in variants.items():
        tunes = _fine_tunes(arguments)
        if not tunes:
            arguments = [*arguments, "--epochs", str(epochs + options.epochs)]
        found.add(name, arguments, starts_from="standard" if tunes else None)
    found.write()
    print(study.table(found.report))


def _fine_tunes(arguments):
    """Whether a variant starts from a standard network; presets and methods know."""
    flag, name = arguments[:2]
    if flag == "--preset":
        name = presets.get(name).settings["method"]
    return methods.get(name).starts_from_standard


if __name__ == "__main__":
    main()

"""Robustness for the hour: one-step methods and their refinements beside PGD training.

    python -m benchmarks.hours --dataset cifar10 --data-dir DIR --network cnn4 --epochs 30 \\
        --attack-limit 1000 --output hours-cnn4.json
    python -m benchmarks.hours --dataset cifar10 --data-dir DIR --network preact_resnet18 \\
        --network-arg width=0.25 --epochs 30 --attack-limit 1000 --output hours-preact.json

Every variant trains from scratch for the same number of epochs, on all images but the validation
split; its row has test images under PGD-20 and AutoAttack, the seconds of its training, and its
train step's time relative to Standard's, interleaved. A row is written when it is done, a training
goes on after its last epoch, and an evaluation where it was stopped: give the same command again.
For a second seed: `--seed 1 --only NAME ...` and another `--output`.
"""

from benchmarks import study
from soar_tf.datasets import defaults


def method(name, *flags, **arguments):
    """The flags of a method with arguments, and further flags."""
    pairs = [part for k, v in arguments.items() for part in ("--method-arg", f"{k}={v}")]
    return ["--method", name, *pairs, *flags]


def variants(epochs):
    """`{name: flags of soar-tf train}`, for a number of epochs.

    Weights are perturbed in the later two thirds, as AWP's authors begin late. What is trained by
    several steps is watched over by nothing, as ever; every result is the last epoch's.
    """
    awp = ["--awp", f"stairs(0, 0.01, epochs={max(1, epochs // 3)})"]
    gentle_awp = ["--awp", f"stairs(0, 0.005, epochs={max(1, epochs // 3)})"]
    ema = ["--ema", "0.999"]
    return {
        "standard": method("standard"),
        "adversarial-7": method("adversarial", steps=7),
        "adversarial-10": method("adversarial", steps=10),
        "trades": method("trades"),
        "fast": method("fast"),
        "n-fgsm": method("n-fgsm"),
        "n-fgsm+qub": method("qub"),
        "n-fgsm+qub-ramp": method("qub", share=f"ramp(1, 0, epochs={epochs})"),
        "n-fgsm+awp": method("n-fgsm", *awp),
        "n-fgsm+ema": method("n-fgsm", *ema),
        "n-fgsm+qub+awp": method("qub", *awp),
        "n-fgsm+qub+ema": method("qub", *ema),
        "n-fgsm+qub+awp+ema": method("qub", *awp, *ema),
        "gradalign": method("gradalign"),
        "elle": method("elle"),
        "elle-a": method("elle", adaptive="true", lambda_=4000),
        "adversarial-7+awp+ema": method("adversarial", *awp, *ema, steps=7),
        "adversarial-10+qub": method("qub", steps=10),
        "trades+awp+ema": method("trades", *gentle_awp, *ema),
        "n-fgsm+mixup": method("n-fgsm", "--mixup", "0.2"),
        "n-fgsm+cutout": method("n-fgsm", "--cutout", "8"),
    }


def main(argv=None):
    """Runs the study."""
    options = study.arguments(__doc__.splitlines()[0]).parse_args(argv)
    radius = defaults.threat_model(options.dataset)
    network = " ".join([options.network or "the default network", *options.network_arg])
    images = options.limit or "all"
    found = study.Study(
        options,
        caption=f"{options.dataset}, {network}, {images} training images, {options.epochs} epochs "
        f"each from scratch, seed {options.seed}, the last epoch's network; "
        f"{options.attack_limit} test images, {radius}. Step: the median over interleaved train "
        "steps.",
    )
    for name, flags in variants(options.epochs).items():
        # A collapse is to be seen in the row, not to be stopped.
        found.add(name, [*flags, "--stop-below", "0"], starts_from=None)
    found.write()
    print(study.table(found.report))


if __name__ == "__main__":
    main()

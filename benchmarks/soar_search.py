"""SOAR's variants with equal budgets: `python -m benchmarks.soar_search --init-from NETWORK ...`.

Every variant fine-tunes the given standard network by the same schedule; then one table: clean,
PGD-20, AutoAttack, accuracy on PGD-20 examples crafted against `--source`, and the train step's
time relative to Standard's. Plain training stands beside it, and adversarial training with 7 steps
and with one, from scratch for `--scratch-epochs`: it does not start from a standard network. The
last rows go on from the one-step network, with SOAR and without.
"""

from pathlib import Path

from benchmarks import study


def soar(**arguments):
    """The flags of a SOAR variant."""
    return method("soar", **arguments)


def method(name, **arguments):
    """The flags of a method with arguments."""
    flags = [part for k, v in arguments.items() for part in ("--method-arg", f"{k}={v}")]
    return ["--method", name, *flags]


MEAN = {"preset": "batch_mean"}
VARIANTS = {
    "standard": method("standard"),
    "per-example": soar(),
    "batch-mean": soar(**MEAN),
    "rms-estimator": soar(**MEAN, estimator="root_mean_square"),
    "full-vector": soar(**MEAN, full_vector="true"),
    "exact-hvp": soar(**MEAN, hvp="exact"),
    "4-directions": soar(**MEAN, num_directions=4),
    "4-directions-rms": soar(**MEAN, num_directions=4, estimator="root_mean_square"),
    "norm-clip-100": soar(**MEAN, norm_clip=100),
    "norm-clip-10000": soar(**MEAN, norm_clip=10000),
    "no-clip": soar(**MEAN, norm_clip="none"),
    "lambda-x0.5": soar(**MEAN, lambda_="1/512"),
    "lambda-x2": soar(**MEAN, lambda_="1/128"),
    "lambda-x4": soar(**MEAN, lambda_="4/256"),
    "lambda-ramp": soar(**MEAN, lambda_="ramp(0, 1/256, epochs=2)"),
    "epsilon-10": soar(**MEAN, epsilon="10/255"),
    "epsilon-12": soar(**MEAN, epsilon="12/255"),
    "epsilon-ramp": soar(**MEAN, epsilon="ramp(2/255, 8/255, epochs=2)"),
    "l2-threat": soar(**MEAN, norm="l2", epsilon="128/255"),
    "step-size-8": soar(**MEAN, step_size="8/255"),
    "raw-step": soar(**MEAN, step_direction="gradient"),
    "alpha-0.3": soar(**MEAN, alpha=0.3),
    "alpha-1": soar(**MEAN, alpha=1),
    "alpha-ramp": soar(**MEAN, alpha="ramp(0.03, 0.3, epochs=2)"),
    "margin-crafting": soar(**MEAN, inner_loss="margin"),
    "dlr-crafting": soar(**MEAN, inner_loss="dlr"),
    "margin-penalty": soar(**MEAN, inner_loss="margin", penalty_loss="margin"),
    "fraction-0.25": soar(**MEAN, penalty_fraction=0.25),
    "fraction-0.5": soar(**MEAN, penalty_fraction=0.5),
    "every-4": soar(**MEAN, penalty_every=4),
    "ema-0.99": [*soar(**MEAN), "--ema", "0.99"],
    "label-smoothing": [*soar(**MEAN), "--label-smoothing", "0.1"],
    "adversarial-7+soar": method("sum", methods="adversarial+soar", weights="1+0"),
    "fast+soar": method("sum", methods="fast+soar", weights="1+0"),
}
# Baselines from scratch, with the peak learning rate that training from scratch has by default.
SCRATCH_RATE = 0.05
SCRATCH = {"adversarial-7": method("adversarial"), "fast": method("fast")}
# From the one-step network, at its own step size: does SOAR add to it?
AFTER_FAST = {
    "fast-continued": method("fast"),
    "soar-after-fast": soar(**MEAN, lambda_="1/512", step_size="10/255"),
    "soar-after-fast-weak": soar(**MEAN, lambda_="1/4096", step_size="10/255"),
}


def main(argv=None):
    """Runs the search."""
    parser = study.arguments(__doc__.splitlines()[0])
    parser.add_argument("--init-from", type=Path, required=True, help="the standard network")
    parser.add_argument("--source", type=Path, help="model that transferred examples come from")
    parser.add_argument("--scratch-epochs", type=int, default=12, help="of the baselines")
    options = parser.parse_args(argv)
    found = study.Study(options, options.init_from, options.source)
    for name, arguments in VARIANTS.items():
        found.add(name, arguments)
    for name, arguments in SCRATCH.items():
        longer = ["--epochs", str(options.scratch_epochs), "--learning-rate", str(SCRATCH_RATE)]
        found.add(name, [*arguments, *longer], starts_from=None)
    for name, arguments in AFTER_FAST.items():
        found.add(name, arguments, starts_from="fast")
    found.write()
    print(study.table(found.report))


if __name__ == "__main__":
    main()

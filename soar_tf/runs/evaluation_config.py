"""What `soar-tf evaluate` and `soar-tf transfer` are asked for; imports nothing heavy."""

import dataclasses

from soar_tf import registry
from soar_tf.runs.settings import LIMIT, ImageSettings, setting
from soar_tf.threat_model import NORMS


@dataclasses.dataclass
class AttackSettings(ImageSettings):
    """Which images are attacked, and how: the same for an evaluation and for transfer.

    `dataset`, `data_dir` and `image_size` that are `None` are those of a run directory.
    """

    split: str = setting("test", "Split to attack.", type=("train", "validation", "test"))
    limit: int | None = setting(None, LIMIT.format("images"), type="positive", unset="all")
    norm: str | None = setting(
        None,
        "Norm of the attacks that set none.",
        type=NORMS,
        unset="that of the run's training, else linf",
    )
    epsilon: float | None = setting(
        None,
        "Radius of the attacks that set none, in units of pixels in [0, 1].",
        type="number",
        unset="that of the run's training, else the data set's usual one, 8/255 for CIFAR-10",
    )
    batch_size: int = setting(
        256, "Images attacked together; the result does not depend on it.", type="positive"
    )
    seed: int = setting(0, "Seed of the attacks.", type="natural")
    pixel_range: float | None = setting(
        None,
        "The value that white has for networks of .keras files and SavedModels that take other "
        "pixels than [0, 1], such as 255.",
        type="number",
        metavar="WHITE",
        unset="1",
    )
    trust: bool = setting(
        False,
        "Load SavedModels whatever operations they hold: they can run any program.",
        type="flag",
    )

    @property
    def reading(self):
        """How image files become images, for `soar_tf.runs.models.dataset_for`."""
        return {name: getattr(self, name) for name in ("resize_crop", "channels", "orientation")}


@dataclasses.dataclass
class TransferConfig(AttackSettings):
    """What `soar_tf.reports.transfer.transfer_models` measures.

    Example:

    >>> from soar_tf.runs.evaluation_config import TransferConfig
    >>> TransferConfig(limit=100).attack
    'pgd20'
    """

    attack: str = setting(
        "pgd20",
        "Attack to craft with; see `soar-tf list attacks`.",
        type=registry.ATTACKS,
        metavar="NAME[:k=v,...]",
    )
    output: str | None = setting(
        None,
        "Folder for transfer.json, transfer.md and transfer.png.",
        type="path",
        metavar="DIR",
        unset="",
    )


@dataclasses.dataclass
class EvaluationConfig(AttackSettings):
    """What `soar_tf.reports.evaluation.evaluate_model` measures and writes.

    Example:

    >>> from soar_tf.runs.evaluation_config import EvaluationConfig
    >>> EvaluationConfig(limit=100, curve=True).curve_attack
    'pgd20'
    """

    attacks: tuple = setting(
        ("fgsm", "pgd20"),
        "Attack, such as fgsm, bim, pgd7, pgd20, l2pgd100 or pgd:steps=50,epsilon=4/255; see "
        "`soar-tf list attacks`. Repeatable.",
        type=registry.ATTACKS,
        metavar="NAME[:k=v,...]",
        option="attack",
        multiple=True,
        late=True,
    )
    masking: bool = setting(
        False, "Also check for gradient masking: can the figures be trusted?", type="flag"
    )
    masking_source: str | None = setting(
        None,
        "Model for the transfer check of --masking, best one trained without a defence.",
        type="model",
        metavar="MODEL",
        unset="none, no such check",
    )
    adaptive: bool = setting(
        False,
        "Also run the adaptive attack, which sees through hidden gradients: honest backward "
        "passes, rescaled logits, averages over draws, Square.",
        type="flag",
        unset="a short one, where the probe finds that gradients may be hidden",
    )
    source: str | None = setting(
        None,
        "Model that --adaptive transfers from as well; for a .tflite or .onnx file the model that "
        "it was exported from, whose gradients the attacks use.",
        type="model",
        metavar="MODEL",
        unset="none; for a file the run directory that it is in or beside",
    )
    curve: bool = setting(
        False,
        "Also measure accuracy against the radius of the perturbation, and each image's distance "
        "to the nearest misclassified point.",
        type="flag",
    )
    curve_attack: str = setting(
        "pgd20",
        "Attack that the curve runs at each radius; autoattack takes long.",
        metavar="NAME[:k=v,...]",
        late=True,
    )
    curve_minimum: str = setting(
        "fmn",
        "Minimum-norm attack of the same norm, whose distances join the curve: fmn, or for l2 "
        "ddn, cw, lbfgs, deepfool.",
        metavar="NAME[:k=v,...]",
        late=True,
    )
    curve_epsilons: tuple = setting(
        (),
        "Radius of the curve, in units of pixels in [0, 1]. Repeatable.",
        type="number",
        option="curve-epsilon",
        multiple=True,
        unset="1/4, 1/2, 1, 3/2, 2 and 4 times the attack's",
    )
    corruptions: bool = setting(
        False,
        "Also measure accuracy under noise, blur, contrast, JPEG and other corruptions at five "
        "severities, computed here by published recipes.",
        type="flag",
    )
    uint8: bool = setting(
        False,
        "Also classify the adversarial images rounded to 8 bits: how many still fool?",
        type="flag",
    )
    output: str | None = setting(
        None,
        "Folder for report.json, report.md, report.html, examples.npz and examples.csv; the same "
        "command goes on where it was stopped. A name that ends in .json is that file alone.",
        type="path",
        metavar="DIR|FILE.json",
        unset="none",
    )
    save_adversarial: bool = setting(
        False,
        "Also write every adversarial image into the folder, adversarial.npz.",
        type="flag",
    )
    state: str | None = setting(
        None,
        "File that keeps what was found, after each batch: the same command goes on where it was "
        "stopped.",
        type="path",
        metavar="FILE",
        unset="evaluation.state in the folder of --output",
    )
    shard: str | None = setting(
        None,
        "Attack the K-th of N shards of the images; soar-tf merge puts the reports of all N "
        "processes or machines together.",
        metavar="K/N",
        unset="all images",
    )

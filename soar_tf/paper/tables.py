"""The paper's tables as data: which networks are measured how.

A column names a function of `soar_tf.paper.measures` and its argument. Every table has AutoAttack
in addition to the paper's columns.
"""

import dataclasses
import functools

from soar_tf.paper import findings, measures, recipes
from soar_tf.paper.report import Report


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of networks by measurements.

    Attributes:
        name: Its name in `soar_tf.paper.published.TABLES`.
        title, caption: The title of the report and the caption of the table.
        rows: Names of the networks, see `soar_tf.paper.recipes`.
        columns: Maps a column's name to the measure and its argument.
        labels: Display names, in addition to `soar_tf.paper.measures.LABELS`.
        linf: Whether attacks in the table use the data set's l-infinity radius.
        compare: Callable that compares the grid with the paper's and returns a finding or `None`.
        DATASET, DATASETS, NETWORKS: As for every entry, see `soar_tf.paper.load`.
    """

    name: str
    title: str
    caption: str
    rows: tuple
    columns: dict
    labels: dict = dataclasses.field(default_factory=dict)
    linf: bool = True
    compare: object = findings.orderings
    DATASET: str = "cifar10"
    DATASETS: tuple = recipes.DATASETS

    @property
    def NETWORKS(self):
        return (*self.rows, *_sources(self.columns))

    def report(self, study):
        """Measures every network of the table in every column; see `soar_tf.paper.report`."""
        sources = _sources(self.columns)
        measured = {
            column: functools.partial(_MEASURES[measure], study, sources, argument)
            for column, (measure, argument) in self.columns.items()
        }
        grid = measures.grid(
            study, self.name, self.caption, self.rows, measured, self.labels, linf=self.linf
        )
        notes = [self.compare(grid), measures.overstatement(study, grid)]
        data = {"epsilon": study.epsilon}
        return Report(self.title, [grid], [note for note in notes if note], data)


def _sources(columns):
    """The source networks of a table's transferred examples."""
    return tuple(argument for measure, argument in columns.values() if measure == "transfer")


_MEASURES = {
    "accuracy": lambda study, _, attack, name, seed: measures.accuracy(study, name, seed, attack),
    # One call for all sources, which share the images and the clean predictions.
    "transfer": lambda study, sources, source, name, seed: measures.transfer(
        study, sources, name, seed
    )[source],
    "top probability": lambda study, _, point, name, seed: measures.top_probability(
        study, name, seed, point
    ),
    "transformed": lambda study, _, transformation, name, seed: measures.transformed(
        study, name, seed, transformation
    ),
}

_CLEAN = {"clean": ("accuracy", None)}
_AUTOATTACK = {"autoattack": ("accuracy", "autoattack")}
_TRANSFER = {source: ("transfer", source) for source in ("cnn-source", "resnet18")}
_MAIN = ("standard", "adv7", "soar")
_ADVERSARIAL = ("standard", "adv7", "adv1-scratch", "adv1-pretrain")
_PGD1 = {"soar": "SOAR, PGD1 init"}
_L2_RADII = ("20/255", "40/255", "60/255")
_SIGMAS = ("0.05", "0.1", "0.15")


def _attacks(*names):
    return {name: ("accuracy", name) for name in names}


table1 = Table(
    "table1",
    "Table 1: white-box l-infinity attacks",
    "Accuracy under white-box l-infinity attacks.",
    (*_ADVERSARIAL, "soar"),
    {**_CLEAN, **_attacks("fgsm", "pgd7", "pgd20"), **_AUTOATTACK},
)
table2 = Table(
    "table2",
    "Table 2: l2 attacks",
    "Accuracy under l2-PGD with 100 steps.",
    _MAIN,
    {
        **{radius: ("accuracy", f"l2pgd100:epsilon={radius}") for radius in _L2_RADII},
        "autoattack": ("accuracy", f"autoattack:norm=l2,epsilon={_L2_RADII[-1]}"),
    },
    {
        **{radius: f"l2, ε = {radius}" for radius in _L2_RADII},
        "autoattack": f"l2 AutoAttack, ε = {_L2_RADII[-1]}",
    },
    linf=False,
)
table3 = Table(
    "table3",
    "Table 3: transferred attacks",
    "Accuracy under PGD20 examples crafted against other networks (columns).",
    _MAIN,
    {**_TRANSFER, **_AUTOATTACK},
)
table4 = Table(
    "table4",
    "Table 4: initialisations of SOAR",
    "Accuracy of SOAR networks, under white-box PGD20 and PGD20 from other networks.",
    ("soar-zero", "soar-random", "soar"),
    {**_CLEAN, **_attacks("pgd20"), **_TRANSFER, **_AUTOATTACK},
    _PGD1,
)
table5 = Table(
    "table5",
    "Table 5: mean top probability",
    "Mean probability of the most probable class.",
    (*_ADVERSARIAL, "soar-zero", "soar-random", "soar"),
    {
        **{point: ("top probability", point) for point in ("zero", "random", "pgd1")},
        **_AUTOATTACK,
    },
    {
        "zero": "clean point",
        "random": "random point",
        "pgd1": "PGD1 point",
        "autoattack": "AutoAttack accuracy",
        **_PGD1,
    },
)
table6 = Table(
    "table6",
    "Table 6: rotations and translations",
    "Accuracy on images rotated and shifted at random.",
    _MAIN,
    {
        **{
            strength: ("transformed", f"spatial:strength={strength}")
            for strength in ("weak", "medium", "strong")
        },
        **_AUTOATTACK,
    },
    {"weak": "Weak", "medium": "Medium", "strong": "Strong"},
)
table7 = Table(
    "table7",
    "Table 7: Gaussian noise",
    "Accuracy on images with Gaussian noise.",
    _MAIN,
    {
        **{sigma: ("transformed", f"gaussian-noise:sigma={sigma}") for sigma in _SIGMAS},
        **_AUTOATTACK,
    },
    {sigma: f"σ = {sigma}" for sigma in _SIGMAS},
)
# Rows next to the values of tables 1, 3, 4 and 5 for SOAR with the same initialisation; see
# `soar_tf.paper.readings`.
readings = Table(
    "readings",
    "Which interpretation of SOAR's constants is the paper's?",
    "SOAR networks next to the paper's values for SOAR with the same initialisation.",
    (
        "reading-example",
        "reading-mean",
        "reading-sum",
        "reading-example-zero",
        "reading-mean-zero",
    ),
    {
        **_CLEAN,
        **_attacks("fgsm", "pgd7", "pgd20"),
        "cnn-source": ("transfer", "cnn-source"),
        "zero": ("top probability", "zero"),
        **_AUTOATTACK,
    },
    {"zero": "mean top probability"},
    compare=findings.distances,
)
# The authors' code standardises each image, which the paper does not mention. The network for the
# digits takes them as they are.
normalization = Table(
    "normalization",
    "What the normalisation of the images changes",
    "Networks that standardise each image, as in the authors' code, next to networks with one "
    "scaling for all.",
    ("standard", "standard-fixed", "soar", "soar-fixed"),
    {
        **_CLEAN,
        **_attacks("fgsm", "pgd7", "pgd20"),
        "zero": ("top probability", "zero"),
        **_AUTOATTACK,
    },
    {"zero": "mean top probability"},
    compare=findings.distances,
    DATASETS=("cifar10",),
)

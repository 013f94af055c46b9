"""The adaptive attack: what gets through where the plain ones are misled.

Gradient attacks fail on networks that hide their gradients, and a figure that only their failure
explains flatters. `stages` gives attacks on stand-ins of the network, from whose slopes nothing is
hidden: rescaled logits (no saturation), honest backward passes (`straight_through`), averages over
the draws of a random network, another network to transfer from; and Square with more queries. What
they find is judged on the network itself, so that it is an upper bound like any other attack's.
"""

import dataclasses
from collections.abc import Callable

from soar_tf.attacks import APGD, APGDT, PGD, Square, as_logits_fn
from soar_tf.attacks.attack import Attack
from soar_tf.evaluation.parts import Part, search_graph
from soar_tf.evaluation.state import fingerprint
from soar_tf.evaluation.straight_through import Averaged, Rescaled, StraightThrough
from soar_tf.evaluation.transfer import craft_graph

JUDGED_DRAWS = 16
"""Passes over which a random network's prediction is averaged in adaptive evaluations."""
_CLIMBED_DRAWS = 8


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much work the adaptive attack does.

    Attributes:
        steps: Gradient steps of each run.
        restarts: Starts of the PGD runs.
        targets: Classes that the targeted run aims at, one after the other.
        queries: Queries of Square.
        square_restarts: Its starts.
    """

    steps: int
    restarts: int
    targets: int
    queries: int
    square_restarts: int


FULL = Budget(steps=100, restarts=2, targets=9, queries=5000, square_restarts=2)
LOW = Budget(steps=40, restarts=1, targets=3, queries=500, square_restarts=1)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One attack on one stand-in.

    Attributes:
        name: What it is called in results.
        attack: The `Attack`.
        logits_fn: The stand-in whose slopes it follows.
        transfers: Whether the stand-in is another network: its own mistakes end no search then.
    """

    name: str
    attack: Attack
    logits_fn: Callable
    transfers: bool = False


def stages(logits_fn, threat, budget, *, random=False, source=None):
    """The adaptive attack's stages, each to be run on what the ones before it left.

    Args:
        logits_fn: Callable `[n, ...] -> [n, C]`, the network.
        threat: The `soar_tf.threat_model.ThreatModel`.
        budget: A `Budget`.
        random: Whether the network's outputs change from pass to pass.
        source: A network to transfer from, or `None`.

    Returns:
        List of `Stage`s.

    Example:

    >>> import soar_tf
    >>> from soar_tf.evaluation import adaptive
    >>> logits_fn = soar_tf.attacks.as_logits_fn(soar_tf.networks.mlp())
    >>> from soar_tf.threat_model import ThreatModel
    >>> threat = ThreatModel("linf", "8/255")
    >>> [stage.name for stage in adaptive.stages(logits_fn, threat, adaptive.LOW)]
    ['rescaled', 'honest', 'honest-margin', 'honest-targeted', 'wide', 'square']
    """
    ball = {"epsilon": threat.epsilon, "norm": threat.norm, "bounds": threat.bounds}

    def stand_in(function):
        function = Averaged(function, _CLIMBED_DRAWS) if random else function
        return Rescaled(function)

    honest = stand_in(StraightThrough(logits_fn))
    wide = stand_in(StraightThrough(logits_fn, wide=True))
    climb = PGD(steps=budget.steps, restarts=budget.restarts, **ball)
    margin = APGD(loss="dlr", steps=budget.steps, **ball)
    targeted = APGDT(targets=budget.targets, steps=budget.steps, **ball)
    result = [
        Stage("rescaled", APGD(loss="ce", steps=budget.steps, **ball), stand_in(logits_fn)),
        Stage("honest", climb, honest),
        Stage("honest-margin", margin, honest),
        Stage("honest-targeted", targeted, honest),
        Stage("wide", climb, wide),
    ]
    if source is not None:
        result.append(Stage("transfer", climb, Rescaled(as_logits_fn(source)), True))
    judged = Averaged(logits_fn, JUDGED_DRAWS) if random else logits_fn
    square = Square(queries=budget.queries, restarts=budget.square_restarts, **ball)
    result.append(Stage("square", square, judged))
    return result


def identity(budget, source, random):
    """What results of the adaptive attack depend on beside the network, as text.

    Args:
        budget: A `Budget`, or `None` where it does not run.
        source: The network to transfer from, or `None`.
        random: Whether the network's outputs change from pass to pass.
    """
    if budget is None:
        return "none"
    said = [str(budget)]
    if source is not None:
        weights = source.get_weights() if hasattr(source, "get_weights") else None
        said.append(f"source {fingerprint(*weights) if weights else 'a function'}")
    if random:
        said.append(f"averaged over {_CLIMBED_DRAWS} draws")
    return ", ".join(said)


def parts(name, threat, stages, shape):
    """The stages as `Part`s of an evaluation, for images of one shape."""
    return [
        Part(
            f"{name} {threat} {stage.name} {stage.attack!r}",
            f"{name} {k}/{len(stages)} {stage.name}",
            f"{name}/{stage.name}",
            stage.attack,
            (craft_graph if stage.transfers else search_graph)(
                stage.attack, stage.logits_fn, shape
            ),
        )
        for k, stage in enumerate(stages, 1)
    ]

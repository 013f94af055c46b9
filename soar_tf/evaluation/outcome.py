"""What an evaluation's parts found, put together: per attack, and per example."""

import numpy as np

from soar_tf.evaluation.results import MISCLASSIFIED, AttackResult, Examples
from soar_tf.ops import norms


def result(session, name, threat, parts, clean):
    """One attack's outcome from its parts' tables; `threat` has its `norm` and `epsilon`."""
    robust, stages = clean.copy(), []
    for part in parts:
        robust = robust & ~session.table(part)["broken"]
        seconds = session.state.seconds.get(part.key, 0.0)
        stages.append(
            {
                "name": part.label.rpartition("/")[2],
                "robust_accuracy": float(robust.mean()),
                "seconds": round(seconds, 3),
            }
        )
    seconds = sum(stage["seconds"] for stage in stages)
    rounded = None
    if session.uint8:
        rounded = float((clean & ~broken_when_rounded(session, parts)).mean())
    return AttackResult(
        name,
        threat.norm,
        threat.epsilon,
        float(robust.mean()),
        round(seconds, 3),
        float(f"{len(clean) / seconds:.4g}") if seconds else 0.0,
        robust,
        tuple(stages) if len(stages) > 1 else (),
        rounded,
    )


def broken_when_rounded(session, parts):
    """bool `[N]`, whether an image that some part found still fools after rounding."""
    tables = [session.table(part) for part in parts]
    return np.logical_or.reduce([t["broken"] & t["broken_uint8"] for t in tables])


def examples(session, parts, answers):
    """What happened to each example: the first part that broke it.

    Args:
        session: The `Session` that ran the parts.
        parts: List of `Part`s.
        answers: The `robustness.Answers` to the clean images.
    """
    clean, loss, prediction = answers.correct, answers.loss, answers.prediction
    names = [MISCLASSIFIED, *(part.label for part in parts)]
    first = np.where(clean, -1, 0)
    nothing = np.full(len(clean), np.nan, np.float32)
    found = {name: np.where(clean, nothing, np.float32(0)) for name in norms.NAMES}
    found["prediction"] = np.where(clean, -1, prediction)
    found["loss"] = np.where(clean, nothing, loss)
    for number, part in enumerate(parts, 1):
        table = session.table(part)
        rows = table["broken"] & (first < 0)
        first[rows] = number
        for name, values in found.items():
            values[rows] = table[name][rows]
    return Examples(
        index=session.positions,
        label=session.y,
        clean_prediction=prediction,
        broken_by=np.array([*names, ""])[first],
        adversarial_prediction=found["prediction"],
        clean_loss=loss,
        adversarial_loss=found["loss"],
        **{name: found[name] for name in norms.NAMES},
    )

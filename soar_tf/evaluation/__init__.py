"""Evaluation: accuracy under attack, always with the pointwise worst case."""

from soar_tf.evaluation.robustness import AttackResult, Evaluation, evaluate

__all__ = ["AttackResult", "Evaluation", "evaluate"]

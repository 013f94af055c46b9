"""Evaluation: accuracy under attack, always with the pointwise worst case."""

from soar_tf.evaluation.per_example import PerExample
from soar_tf.evaluation.robustness import AttackResult, Evaluation, Evaluator, evaluate

__all__ = ["AttackResult", "Evaluation", "Evaluator", "PerExample", "evaluate"]

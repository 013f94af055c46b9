"""Evaluation: accuracy under attack, always with the pointwise worst case."""

from soar_tf.evaluation.robustness import AttackResult, Evaluation, evaluate
from soar_tf.evaluation.transfer import TransferMatrix, transfer_matrix

__all__ = ["AttackResult", "Evaluation", "TransferMatrix", "evaluate", "transfer_matrix"]

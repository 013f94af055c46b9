"""Evaluation: accuracy under attack, always with the pointwise worst case."""

from soar_tf.evaluation.comparison import Comparison, compare
from soar_tf.evaluation.corruptions import CorruptionAccuracies, corruption_accuracies
from soar_tf.evaluation.curve import AccuracyCurve, accuracy_curve, curve_from_distances
from soar_tf.evaluation.distances import MinimumNorms, minimum_norms
from soar_tf.evaluation.evaluator import Evaluator, evaluate
from soar_tf.evaluation.indicators import AttackIndicators, attack_indicators
from soar_tf.evaluation.loss_surface import LossSurface, loss_surface
from soar_tf.evaluation.masking import MaskingReport, masking_report
from soar_tf.evaluation.masking_checks import Check
from soar_tf.evaluation.merging import merge
from soar_tf.evaluation.per_example import PerExample
from soar_tf.evaluation.progress import Progress
from soar_tf.evaluation.results import AttackResult, Evaluation, Examples
from soar_tf.evaluation.shard import Shard
from soar_tf.evaluation.state import State
from soar_tf.evaluation.transfer import TransferMatrix, transfer_matrix
from soar_tf.models.probe import probe

__all__ = [
    "AccuracyCurve",
    "AttackIndicators",
    "AttackResult",
    "Check",
    "Comparison",
    "CorruptionAccuracies",
    "Evaluation",
    "Evaluator",
    "Examples",
    "LossSurface",
    "MaskingReport",
    "MinimumNorms",
    "PerExample",
    "Progress",
    "Shard",
    "State",
    "TransferMatrix",
    "accuracy_curve",
    "attack_indicators",
    "compare",
    "corruption_accuracies",
    "curve_from_distances",
    "evaluate",
    "loss_surface",
    "masking_report",
    "merge",
    "minimum_norms",
    "probe",
    "transfer_matrix",
]

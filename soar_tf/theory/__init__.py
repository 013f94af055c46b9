"""The paper's closed-form results, and the ladder of bounds behind its penalty."""

from soar_tf.theory.closed_forms import (
    expected_attacked_loss,
    gradient_descent,
    irrelevant_attack,
    logistic_bound,
    logistic_loss,
    logistic_penalty,
    logistic_terms,
    ridge_solution,
    robustified_loss,
    squared_loss,
)

__all__ = [
    "expected_attacked_loss",
    "gradient_descent",
    "irrelevant_attack",
    "logistic_bound",
    "logistic_loss",
    "logistic_penalty",
    "logistic_terms",
    "ridge_solution",
    "robustified_loss",
    "squared_loss",
]

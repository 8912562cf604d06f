"""Confidence bounds: what draws prove about a probability. One file a family.

May import tallies' siblings never, errors only; numpy and ``scipy.special`` (imported where used).
"""

from smoothcert.bounds.binomial import (
    binomial_test,
    clopper_pearson_lower,
    clopper_pearson_upper,
    tail_upper,
)
from smoothcert.bounds.bounded_mean import betting_lower, empirical_bernstein_lower, hoeffding_lower
from smoothcert.bounds.covariance import pair_upper, top_eigenvalue_upper
from smoothcert.bounds.multiplicity import split_alpha
from smoothcert.bounds.population import population_lower, true_count_lower

__all__ = [
    "betting_lower",
    "binomial_test",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "empirical_bernstein_lower",
    "hoeffding_lower",
    "pair_upper",
    "population_lower",
    "split_alpha",
    "tail_upper",
    "top_eigenvalue_upper",
    "true_count_lower",
]

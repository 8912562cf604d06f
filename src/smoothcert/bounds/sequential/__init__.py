"""Tests that look at the draws while they are made, at a level that counts every look (THEORY 5).

Notation: looks n_1 < ... < n_K = N, S_k successes among the first n_k draws, p the success probability of
the null hypothesis "at most p". Everything here is fixed before the first draw.
"""

from smoothcert.bounds.sequential.boundary import Boundary, boundary, crossing_probability
from smoothcert.bounds.sequential.futility import power_of_count, power_of_lead, power_of_pair
from smoothcert.bounds.sequential.looks import geometric_looks, spent_by, unanimous
from smoothcert.bounds.sequential.mixture import anytime_lower, anytime_upper, log_wealth

__all__ = [
    "Boundary",
    "anytime_lower",
    "anytime_upper",
    "boundary",
    "crossing_probability",
    "geometric_looks",
    "log_wealth",
    "power_of_count",
    "power_of_lead",
    "power_of_pair",
    "spent_by",
    "unanimous",
]

"""Shares of images: the interval is two-sided, printing never rounds an interval inward."""

from __future__ import annotations

import pytest
from statsmodels.stats.proportion import proportion_confint

from smoothcert.analysis import Proportion
from smoothcert.errors import InvalidInput


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(
    ("count", "total"), [(0, 100), (1, 7), (66, 100), (263, 500), (5000, 10_000), (100, 100)]
)
def test_interval_is_two_sided_clopper_pearson(count: int, total: int, confidence: float) -> None:
    share = Proportion.of(count, total, confidence=confidence)
    low, high = proportion_confint(count, total, alpha=1 - confidence, method="beta")
    assert share.lower == pytest.approx(low, abs=1e-8)
    assert share.upper == pytest.approx(high, abs=1e-8)
    assert share.lower <= low + 1e-15
    assert share.upper >= high - 1e-15


@pytest.mark.parametrize(
    ("count", "total", "printed"),
    [
        (0, 3, "0.0"),
        (3, 3, "100.0"),
        (1, 3, "33.3"),
        (2, 3, "66.7"),
        (1, 2000, "0.1"),
        (7584, 10_000, "75.8"),
        (5, 10_000, "0.1"),
    ],
)
def test_percent_has_one_decimal_ties_upward(count: int, total: int, printed: str) -> None:
    assert Proportion.of(count, total).percent() == printed


def test_interval_is_printed_outward() -> None:
    share = Proportion(50, 100, 0.95, lower=0.39832, upper=0.60101)
    assert share.interval() == "[39.8, 60.2]"
    assert Proportion(0, 10, 0.95, lower=0.0, upper=1.0).interval() == "[0.0, 100.0]"


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_a_confidence_outside_the_unit_interval_is_refused(confidence: float) -> None:
    with pytest.raises(InvalidInput, match="confidence"):
        Proportion.of(1, 2, confidence=confidence)

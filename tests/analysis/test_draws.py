"""Accuracy of one draw, from the votes."""

from __future__ import annotations

import pytest

from smoothcert.analysis import draw_accuracy, draw_table
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Outcome, Results


def run(hits: list[int | None], sigma: float = 0.5) -> Results:
    outcomes = tuple(Outcome(k, 1, 1, 0.1, hits=h) for k, h in enumerate(hits))
    return Results("r", outcomes, sigma=sigma, alpha=0.001, n0=10, n=20, description="model")


def test_share_and_standard_error() -> None:
    found = draw_accuracy(run([20, 10]))
    assert (found.images, found.draws, found.hits, found.share) == (2, 20, 30, 0.75)
    assert found.standard_error == pytest.approx(0.25)


def test_table_has_a_column_for_each_sigma() -> None:
    table = draw_table([run([20, 10]), run([5, 5], 1.0)])
    assert table.header == ("model", "sigma = 0.5", "sigma = 1")
    assert table.rows == (("model", "75.0 +- 25.0", "25.0 +- 0.0"),)


def test_logs_without_votes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no votes"):
        draw_accuracy(run([None, 3]))

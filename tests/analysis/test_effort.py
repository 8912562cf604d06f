"""Draws counted, decisions counted, and what all images together prove."""

from __future__ import annotations

import pytest

from smoothcert import analysis
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Outcome, Results

DRAWS = [16, 32, 32, 48, 64, 80, 96, 112, 128, 1_000]
REASONS = ["decided"] * 4 + ["hopeless"] * 5 + ["exhausted"]


def results(**changes: object) -> Results:
    outcomes = tuple(
        Outcome(k, 0, 0 if k < 8 else None, 0.5 if k < 4 else 0.0, draws=draws, reason=reason)
        for k, (draws, reason) in enumerate(zip(DRAWS, REASONS, strict=True))
    )
    values: dict[str, object] = {
        "sigma": 0.5,
        "alpha": 0.001,
        "n0": 0,
        "n": 1_200,
        "stop": "table:0,0.5,2",
        "radii": (0.0, 0.5, 2.0),
        "out_of_reach": (2.0,),
        "description": "data: model",
    }
    return Results("runs/a", outcomes, **(values | changes))  # type: ignore[arg-type]


def test_draws_are_counted_as_they_were_made() -> None:
    found = analysis.effort(results())
    assert (found.images, found.draws, found.mean, found.median) == (10, sum(DRAWS), sum(DRAWS) / 10, 72)
    assert found.q90 == 128, "nine of ten images took at most so many"
    assert found.most == 1_000
    assert found.fixed == 10 * 1_100, "n / 1.2 each, and 100 to select"
    assert found.factor == found.fixed / found.draws


def test_predictions_set_no_draws_aside() -> None:
    answers = tuple(Outcome(k, 0, 0, None, draws=20, reason="decided") for k in range(3))
    run = Results("r", answers, sigma=1.0, alpha=0.001, n0=0, n=200, stop="predict")
    assert analysis.effort(run).fixed == 3 * round(200 / 1.2)


def test_a_log_without_draws_is_refused() -> None:
    log = Results("log.tsv", (Outcome(0, 0, 0, 0.5),), sigma=0.5, n=100)
    with pytest.raises(InvalidInput, match="no counts of draws"):
        analysis.effort(log)


def test_decisions_say_why_a_radius_is_open() -> None:
    at0, at_half, _ = analysis.decisions(results())
    assert (at0.proved, at0.open_) == (8, {"hopeless": 1, "exhausted": 1})
    assert (at_half.proved, at_half.open_) == (4, {"hopeless": 5, "exhausted": 1})
    table = analysis.decision_table([results()])
    assert table.rows[2][1:] == ("2", "-", "-", "-")
    assert "not even unanimous votes" in table.caption
    assert "given up" in table.caption


def test_effort_table_has_a_row_a_run() -> None:
    table = analysis.effort_table([results(), results(sigma=1.0)])
    assert [row[0] for row in table.rows] == ["0.5", "1"]
    assert table.rows[0][-1] == f"{11_000 / sum(DRAWS):.1f}x"


def test_captions_name_the_rule_and_mark_label_aware_runs() -> None:
    caption = analysis.certified_accuracy([results()]).caption
    assert "stop = table:0,0.5,2" in caption
    assert "n at most 1,200" in caption
    assert "Label-aware" not in caption
    marked = results(label_aware=True)
    for text in (
        analysis.certified_accuracy([marked]).caption,
        analysis.certified_accuracy([marked]).best().caption,
        analysis.whole_table([marked], [0.0]).caption,
        analysis.certified_accuracy([marked]).to_json(),
    ):
        assert "Label-aware" in text
    assert analysis.certified_accuracy([marked]).to_csv().splitlines()[1].count("True") >= 1


def test_runs_that_differ_in_the_rule_are_told_apart() -> None:
    table = analysis.certified_accuracy([results(), results(stop="fixed", radii=(), n0=100)]).table()
    assert "stop" in table.header


def test_whole_set_allows_for_false_certificates() -> None:
    plain = analysis.whole_set(results(), 0.0)
    assert (plain.certified, plain.images) == (8, 10)
    assert plain.true_at_least == 8, "at alpha = .001 a false one among two is less likely than 5 %"
    careless = analysis.whole_set(results(alpha=0.3), 0.0)
    assert careless.true_at_least < 8
    assert 0.0 < plain.population_at_least < 0.8
    assert careless.population_at_least < plain.population_at_least
    rows = analysis.whole_table([results()], [0.0, 0.5]).rows
    assert [row[1:4] for row in rows] == [("0", "8 of 10 (80.0 %)", "8"), ("0.5", "4 of 10 (40.0 %)", "4")]


def test_single_draws_cannot_be_read_from_votes_that_decided_when_to_stop() -> None:
    with pytest.raises(InvalidInput, match="biased"):
        analysis.draw_accuracy(results())

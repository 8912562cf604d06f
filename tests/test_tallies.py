"""Votes: what a tally counts, and what it must never lose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.errors import InvalidInput
from smoothcert.tallies import Votes

tallies = st.builds(Votes.of, st.dictionaries(st.integers(0, 999), st.integers(0, 50)), st.integers(0, 9))


@given(tallies, tallies)
def test_adding_keeps_every_draw(a: Votes, b: Votes) -> None:
    assert (a + b).total == a.total + b.total
    assert a + b == b + a
    assert (a + b).nonfinite == a.nonfinite + b.nonfinite


@given(tallies)
def test_json_round_trip(votes: Votes) -> None:
    assert Votes.from_json(votes.to_json()) == votes


def test_nonfinite_answers_count_in_the_total_and_as_a_rival() -> None:
    votes = Votes.from_labels([3, 3, -1, -1, -1, 7])
    assert (votes.total, votes.nonfinite, votes.top(), votes.strongest_rival(3)) == (6, 3, 3, 3)


def test_ties_go_to_the_smaller_class() -> None:
    assert Votes.of({5: 4, 2: 4}).top() == 2
    assert Votes().top() is None


@pytest.mark.parametrize("text", ["", "[]", '{"a":1}', '{"1":-2}', '{"1":1.5}', '{"1":true}', "null"])
def test_foreign_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Votes.from_json(text)


@pytest.mark.parametrize("counts", [((2, 1), (1, 1)), ((1, 1), (1, 2)), ((1, 0),), ((-1, 3),)])
def test_malformed_counts_are_refused(counts: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(InvalidInput):
        Votes(counts)

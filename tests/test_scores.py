"""Tallies of features and scores: whole numbers, so that pieces in any order are the same sums to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.errors import InvalidInput
from smoothcert.tallies import Features, Scores, Votes, merged, tally_from_json
from smoothcert.tallies.packing import packed, unpacked

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(INT64, max_size=40))
def test_packed_numbers_come_back(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    assert (unpacked(packed(array)) == array).all()
    assert len(unpacked(packed(array))) == len(array)


def test_small_numbers_take_one_byte_each() -> None:
    assert len(packed(np.zeros(3_000, dtype=np.int64))) == 4_000


@pytest.mark.parametrize("text", ["!", "gICA", "gICAgICAgICAgICAgICAAA=="])
def test_what_is_not_packed_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="packed form"):
        unpacked(text)


def scores(rng: np.random.Generator, draws: int) -> Scores:
    return Scores(draws, rng.integers(-(10**12), 10**12, 50), int(rng.integers(0, draws + 1)))


def test_scores_add_up_the_same_in_any_order() -> None:
    rng = np.random.default_rng(0)
    parts = [scores(rng, int(rng.integers(1, 40))) for _ in range(9)]
    whole = merged(parts)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(9)
        left, right = merged([parts[k] for k in order[:4]]), merged([parts[k] for k in order[4:]])
        again = merged([left, right])
        assert again == whole
        assert again.to_json() == whole.to_json()
    assert whole.total == sum(part.total for part in parts)
    assert whole.nonfinite == sum(part.nonfinite for part in parts)


def test_scores_of_different_plans_do_not_mix() -> None:
    with pytest.raises(InvalidInput, match="different plans"):
        Scores(1, np.zeros(3, dtype=np.int64)) + Scores(1, np.zeros(4, dtype=np.int64))
    one, other = (Scores(1, np.zeros(3, dtype=np.int64), layout=text) for text in ("{}", '{"label":1}'))
    with pytest.raises(InvalidInput, match="different plans"):
        one + other


def features(first: int, rows: int) -> Features:
    drawn = np.random.default_rng(first).normal(size=(rows, 6))
    return Features.of(first, drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def test_pilot_features_are_in_the_order_of_their_draws() -> None:
    parts = [features(0, 16), features(16, 16), features(32, 5)]
    whole = merged(parts)
    for order in ((2, 0, 1), (1, 2, 0)):
        assert merged([parts[k] for k in order]) == whole
    assert whole.total == 37
    assert isinstance(whole, Features)
    assert np.allclose(whole.rows()[16:32], parts[1].rows())
    drawn = np.random.default_rng(16).normal(size=(16, 6))
    exact = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    assert np.abs(whole.rows()[16:32] - exact).max() <= 2.0**-16


def test_a_pilot_draw_counts_once() -> None:
    with pytest.raises(InvalidInput, match="overlap"):
        features(0, 16) + features(8, 16)


def test_broken_features_are_counted() -> None:
    rows = np.eye(4)
    rows[2] = 0.0
    assert Features.of(0, rows).nonfinite == 1


@pytest.mark.parametrize(
    "tally",
    [
        Votes.of({3: 4}, 2),
        Scores(5, np.arange(-3, 9, dtype=np.int64), 1, '{"centre":0.1}'),
        merged([features(0, 16), features(16, 3)]),
    ],
)
def test_every_tally_comes_back_from_its_text(tally: Votes | Scores | Features) -> None:
    assert tally_from_json(tally.to_json()) == tally


@pytest.mark.parametrize(
    "text",
    [
        '{"draws":3,"nonfinite":9,"layout":{},"scores":"AAAA"}',
        '{"draws":-1,"nonfinite":0,"layout":{},"scores":""}',
        '{"draws":1}',
        '{"features":[]}',
        '{"features":[[0,2,"' + packed(np.array([40_000, 0], dtype=np.int64)) + '"]]}',
        '{"features":[[0,3,"' + packed(np.array([1, 0], dtype=np.int64)) + '"]]}',
        '{"features":[[0',
    ],
)
def test_a_spoiled_tally_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        tally_from_json(text)

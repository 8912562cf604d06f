"""Shards partition the images of a run, evenly, whatever the order of the data."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.errors import InvalidInput, SpecificationMismatch
from smoothcert.runlog.shard import WHOLE, Shard, as_shard


@given(st.lists(st.integers(0, 10**9), unique=True, max_size=300), st.integers(1, 40), st.randoms())
def test_every_image_belongs_to_exactly_one_shard(
    examples: list[int], count: int, chance: random.Random
) -> None:
    held = [list(Shard(number, count).positions(examples)) for number in range(1, count + 1)]
    assert sorted(position for one in held for position in one) == list(range(len(examples)))
    assert all(one == sorted(one) for one in held)
    for number in range(1, count + 1):
        ranks = [rank for rank in range(len(examples)) if Shard(number, count).holds(rank)]
        assert list(Shard(number, count).ranks(len(examples))) == ranks
    sizes = [len(one) for one in held]
    assert max(sizes) - min(sizes) <= 1
    shuffled = chance.sample(examples, len(examples))
    for number, one in enumerate(held, 1):
        again = Shard(number, count).positions(shuffled)
        assert {shuffled[p] for p in again} == {examples[p] for p in one}, (
            "the order of the data is no matter"
        )


@pytest.mark.parametrize("count", [2, 5, 8, 10])
@pytest.mark.parametrize("label", [lambda k: k // 40, lambda k: k % 10], ids=["sorted", "in turn"])
def test_every_shard_has_its_share_of_every_class(count: int, label: object) -> None:
    labels = [label(k) for k in range(400)]  # type: ignore[operator]
    for number in range(1, count + 1):
        found = Counter(labels[p] for p in Shard(number, count).positions(range(400)))
        assert all(abs(found[c] - 40 / count) <= 1 for c in range(10)), found


@given(st.integers(1, 10**6), st.data())
def test_its_text_is_read_back(count: int, data: st.DataObject) -> None:
    shard = Shard(data.draw(st.integers(1, count)), count)
    assert Shard.parse(str(shard)) == shard == as_shard(str(shard))
    assert as_shard(None) == WHOLE
    assert WHOLE.whole


def test_directories_sort_by_number() -> None:
    assert Shard(3, 16).directory == "shard-03-of-16"
    names = [Shard(number, 120).directory for number in range(1, 121)]
    assert names == sorted(names)
    assert names[2] == "shard-003-of-120"


@pytest.mark.parametrize("text", ["0/16", "17/16", "1/0", "0/0", "1/1000001"])
def test_numbers_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=f"shard {text}"):
        Shard.parse(text)
    if text.endswith("/16"):
        with pytest.raises(InvalidInput, match=r"Write 1/16 to 16/16 .*--array=1-16"):
            Shard.parse(text)


@pytest.mark.parametrize(
    "text", ["", "3", "/16", "3/", "3/16/2", "-1/16", "3.0/16", "a/b", "3 of 16", "٣/16"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="Write for example 3/16"):
        Shard.parse(text)


def test_another_shard_is_not_continued() -> None:
    where = Path("runs/part")
    Shard(2, 3).check_asked(Shard(2, 3), where)
    with pytest.raises(
        SpecificationMismatch, match=r"holds shard 2/3 of this run, and shard 2/4 of this run"
    ):
        Shard(2, 3).check_asked(Shard(2, 4), where)
    with pytest.raises(SpecificationMismatch, match="and the whole run was asked for"):
        Shard(2, 3).check_asked(WHOLE, where)
    with pytest.raises(SpecificationMismatch, match="holds the whole run, and shard 1/3"):
        WHOLE.check_asked(Shard(1, 3), where)

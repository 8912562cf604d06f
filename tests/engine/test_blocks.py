"""Sequential batches: every asked draw once, at a row that only its name decides, whatever the order."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.certificates.course import Design, Verdict
from smoothcert.engine.blocks import Batch, Blocks, block_size
from smoothcert.engine.track import Tracker
from smoothcert.runlog.specification import RuleSpec
from smoothcert.runlog.standing import Standing, standings
from smoothcert.runlog.store import TallyRow
from smoothcert.tallies import Votes

NAMES = [7, 3, 11, 5, 2]
RULES = ("table:0,0.25,0.5", "radius:0.5", "curve:0.1", "anytime")
Draw = tuple[int, str, int]


def designed(stop: str, n: int) -> Design:
    rule = RuleSpec.settle("certify", stop=stop, n=n, n0=None if stop[0] in "tr" else 50)
    return rule.design(alpha=0.001, sigma=0.5, noise_error=0.0)


@cache
def answer(example: int, stage: str, draw: int) -> int:
    """A vote that only the draw's name decides: image k answers class 0 about half to always."""
    share = {7: 0.55, 3: 0.8, 11: 0.97, 5: 1.0, 2: 0.3}[example]
    return int(random.Random(f"{example} {stage} {draw}").random() >= share)


def row(segment_of: tuple[int, str, int, int]) -> TallyRow:
    example, stage, first, draws = segment_of
    labels = [answer(example, stage, draw) for draw in range(first, first + draws)]
    return TallyRow(example, stage, first, draws, Votes.from_labels(labels), 0.001)


def places(batch: Batch) -> dict[Draw, int]:
    """The row of every counted draw of a batch."""
    found: dict[Draw, int] = {}
    at = 0
    for part in batch:
        example, stage, first, draws = part.segment
        if part.counted:
            found |= {(example, stage, first + k): at + k for k in range(draws)}
        at += draws
    return found


def play(
    stop: str,
    n: int,
    batch: int,
    *,
    stored: list[TallyRow],
    order: random.Random,
    ahead: int,
    most: int = 64,
    positions: list[int] | None = None,
) -> tuple[dict[Draw, int], list[TallyRow], Tracker]:
    """Run to the end with ``ahead`` batches under way, finished in a random order."""
    design = designed(stop, n)
    labels = dict.fromkeys(NAMES, 0)
    before = standings(design, stored, labels)
    tracker = Tracker(design, labels, before)
    others = bytearray(positions is not None and k not in positions for k in range(len(NAMES)))
    blocks = Blocks(NAMES, tracker, before, batch, most, others)
    seen: dict[Draw, int] = {}
    rows: list[TallyRow] = []
    waiting: list[Batch] = []
    while True:
        while len(waiting) < ahead and (made := blocks.batch(partly=not waiting)):
            size = sum(part.segment.draws for part in made)
            assert size <= batch
            again = places(made).keys() & seen.keys()
            assert not again, "a draw was planned twice"
            seen |= places(made)
            waiting.append(made)
        if not waiting:
            return seen, rows, tracker
        for part in waiting.pop(order.randrange(len(waiting))):
            if part.counted:
                rows.append(row(part.segment))
                blocks.finished(rows[-1])


def verdicts(stop: str, n: int, rows: list[TallyRow]) -> dict[int, Verdict | None]:
    """What is proved of each image, and with how many draws."""
    found = standings(designed(stop, n), rows, dict.fromkeys(NAMES, 0))
    return {example: standing.course.verdict() for example, standing in found.items()}


@pytest.mark.parametrize("stop", RULES)
@pytest.mark.parametrize("batch", [2, 10, 16, 48, 256])
def test_order_and_number_under_way_change_no_draw_and_no_place(stop: str, batch: int) -> None:
    reference = play(stop, 1_200, batch, stored=[], order=random.Random(0), ahead=1)
    for seed, ahead, most in ((1, 2, 64), (2, 7, 64), (3, 4, 1)):
        found = play(stop, 1_200, batch, stored=[], order=random.Random(seed), ahead=ahead, most=most)
        assert found[0] == reference[0]
        assert found[2].done == len(NAMES)
        assert sorted(found[2].newly_finished()) == sorted(NAMES)
        assert verdicts(stop, 1_200, found[1]) == verdicts(stop, 1_200, reference[1])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(RULES), st.sampled_from([10, 32, 64]), st.integers(0, 10**6), st.floats(0.0, 1.0))
def test_any_part_of_the_rows_can_be_continued(stop: str, batch: int, seed: int, share: float) -> None:
    """A kill leaves the rows of some finished batches; the rest is asked for, at the same places."""
    whole, rows, _ = play(stop, 1_000, batch, stored=[], order=random.Random(seed), ahead=3)
    kept = rows[: int(share * len(rows))]
    left, more, tracker = play(stop, 1_000, batch, stored=kept, order=random.Random(seed + 1), ahead=2)
    drawn = {(r.example, r.stage, r.first + k) for r in kept for k in range(r.draws)}
    assert drawn.isdisjoint(left)
    assert drawn | left.keys() == whole.keys()
    assert all(whole[draw] == place for draw, place in left.items())
    assert tracker.done == len(NAMES)
    assert verdicts(stop, 1_000, [*kept, *more]) == verdicts(stop, 1_000, rows)
    replayed = standings(designed(stop, 1_000), [*kept, *more], dict.fromkeys(NAMES, 0))
    assert all(found.course.need is None and not found.unasked for found in replayed.values())


@pytest.mark.parametrize("stop", RULES)
def test_finished_images_are_passed_over_and_move_no_other(stop: str) -> None:
    whole = play(stop, 1_000, 32, stored=[], order=random.Random(0), ahead=2)[0]
    design, labels, seen = designed(stop, 1_000), dict.fromkeys(NAMES, 0), dict[Draw, int]()
    tracker = Tracker(design, labels, {}, done=2)
    blocks = Blocks(NAMES, tracker, {}, 32, 64, bytearray([1, 0, 0, 1, 0]))
    while batch := blocks.batch(partly=True):
        seen |= places(batch)
        for part in batch:
            if part.counted:
                blocks.finished(row(part.segment))
    assert seen == {draw: place for draw, place in whole.items() if draw[0] not in (NAMES[0], NAMES[3])}
    assert tracker.done == len(NAMES)


def test_batches_stay_full_while_images_finish() -> None:
    """At 16 rows a block, what is not filled is the end of the run and little else."""
    design = designed("table:0,0.25,0.5", 3_000)
    names = list(range(200))
    labels = dict.fromkeys(names, 0)
    tracker = Tracker(design, labels, {})
    blocks = Blocks(names, tracker, {}, 256, 128)
    filled = rows = under = 0
    waiting: list[Batch] = []
    while True:
        while len(waiting) < 3 and (made := blocks.batch(partly=len(waiting) < 2)):
            waiting.append(made)
        if not waiting:
            break
        batch = waiting.pop(0)
        rows += 256
        for part in batch:
            if part.counted:
                filled += part.segment.draws
                example, stage, first, draws = part.segment
                labels_ = [answer(NAMES[example % 5], stage, d) for d in range(first, first + draws)]
                blocks.finished(TallyRow(example, stage, first, draws, Votes.from_labels(labels_), 0.0))
        under = max(under, blocks.under_way)
    assert filled / rows > 0.95
    assert under < 100, "a few images are under way, not all"


def test_a_block_divides_the_batch() -> None:
    assert [block_size(batch) for batch in (2, 7, 16, 20, 48, 256, 34)] == [2, 7, 16, 10, 16, 16, 2]


def test_rows_that_nobody_asked_for_are_noticed() -> None:
    design = designed("radius:0.5", 1_000)
    looks = design.facts()["looks"]
    rows = [row((5, "estimation", 0, looks[0])), row((5, "estimation", looks[2], 16))]
    found: Standing = standings(design, rows, {5: 0})[5]
    assert found.unasked == 16
    over = standings(design, [row((5, "estimation", 0, looks[0] + 1))], {5: 0})[5]
    assert over.unasked == looks[0] + 1, "a row across a look cannot be read at the look"

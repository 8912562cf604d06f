"""The layout of draws in batches: complete, disjoint, full, and a pure function of the specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.engine.plan import Plan
from smoothcert.errors import RunFileError
from smoothcert.runlog.reading import Progress
from smoothcert.smoothing.streams import Segment
from smoothcert.tallies import Votes

plans = st.builds(
    lambda examples, n0, n, batch: Plan(examples, (("selection", n0), ("estimation", n)), batch),
    st.lists(st.integers(0, 1000), min_size=1, max_size=6, unique=True),
    st.integers(1, 30),
    st.integers(1, 80),
    st.integers(2, 50),
)


@given(plans)
def test_every_draw_is_planned_once_and_batches_are_full(plan: Plan) -> None:
    drawn = []
    for number in range(plan.batches):
        segments = plan.segments(number)
        size = sum(segment.draws for segment in segments)
        assert size == plan.batch or number == plan.batches - 1
        assert 1 <= size <= plan.batch
        drawn += [(s.example, s.stage, s.first + k) for s in segments for k in range(s.draws)]
    expected = [(e, stage, k) for e in plan.examples for stage, n in plan.stages for k in range(n)]
    assert drawn == expected


@given(plans, st.data())
def test_what_is_missing_is_what_is_not_stored(plan: Plan, data: st.DataObject) -> None:
    stored = data.draw(st.sets(st.integers(0, plan.batches - 1)))
    done: dict[int, Progress] = {}
    for number in sorted(stored):
        for segment in plan.segments(number):
            image = done.setdefault(segment.example, Progress({}, {}))
            ranges = image.ranges.setdefault(segment.stage, [])
            if ranges and ranges[-1][1] == segment.first:
                ranges[-1] = (ranges[-1][0], segment.first + segment.draws)
            else:
                ranges.append((segment.first, segment.first + segment.draws))
    missing = sorted(set(range(plan.batches)) - stored)
    assert list(plan.missing(done)) == missing
    whole = {stage: [(0, draws)] for stage, draws in plan.stages}
    finished = bytearray(e in done and done[e].ranges == whole for e in plan.examples)
    unfinished = {e: image for e, image in done.items() if image.ranges != whole}
    assert list(plan.missing(unfinished, finished)) == missing, "finished images need not be described"


def test_a_batch_stored_in_part_is_refused() -> None:
    plan = Plan([0, 1], (("selection", 4), ("estimation", 4)), 6)
    done = {0: Progress({"selection": Votes.of({0: 4})}, {"selection": [(0, 4)]})}
    with pytest.raises(RunFileError, match="in part"):
        list(plan.missing(done))


def test_images_share_batches() -> None:
    plan = Plan([7, 9], (("selection", 2), ("estimation", 3)), 8)
    assert plan.segments(0) == (
        Segment(7, "selection", 0, 2),
        Segment(7, "estimation", 0, 3),
        Segment(9, "selection", 0, 2),
        Segment(9, "estimation", 0, 1),
    )

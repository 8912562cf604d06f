"""A shard makes the draws of its images as the whole run makes them: same names, same rows, same counts."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine import targets
from tests.engine.test_blocks import NAMES, RULES, answer, designed, places, play
from tests.engine.test_plan import plans
from tests.faults.harness import CONTEXT

import smoothcert as sc
from smoothcert.engine import prepare
from smoothcert.engine.blocks import Blocks
from smoothcert.engine.job import Job
from smoothcert.engine.plan import Plan
from smoothcert.engine.track import Tracker
from smoothcert.errors import InvalidInput, SpecificationMismatch
from smoothcert.runlog import merge_shards, tally_digest
from smoothcert.runlog.reading import Progress, merge
from smoothcert.runlog.shard import Shard
from smoothcert.runlog.specification import RuleSpec
from smoothcert.runlog.store import TallyRow
from smoothcert.tallies import Votes


def shards(count: int) -> list[Shard]:
    return [Shard(number, count) for number in range(1, count + 1)]


def counts(directory: Path) -> dict[tuple[int, str], tuple[object, str]]:
    """Of each image and stage: which draws were made, and what they answered."""
    found = merge(row for row, _ in sc.open_run(directory).tallies())
    return {
        (example, stage): (image.ranges[stage], tally.to_json())
        for example, image in found.items()
        for stage, tally in image.tallies.items()
    }


@given(plans, st.integers(1, 7))
def test_a_planned_draw_has_the_row_of_the_whole_run(plan: Plan, count: int) -> None:
    whole = {
        draw: (number, row)
        for number in range(plan.batches)
        for draw, row in places(plan.parts(number)).items()
    }
    found: dict[object, tuple[int, int]] = {}
    for shard in shards(count):
        part = replace(plan, positions=shard.positions(plan.examples))
        numbers = list(part.missing({}))
        assert numbers == sorted(set(numbers))
        drawn = {
            draw: (number, row) for number in numbers for draw, row in places(part.parts(number)).items()
        }
        assert len(drawn) == part.draws
        assert not drawn.keys() & found.keys()
        assert all(sum(p.segment.draws for p in part.parts(number)) <= plan.batch for number in numbers)
        found |= drawn
    assert found == whole


@given(plans, st.integers(1, 4), st.data())
def test_a_planned_shard_asks_for_what_is_not_stored(plan: Plan, count: int, data: st.DataObject) -> None:
    shard = data.draw(st.sampled_from(shards(count)))
    part = replace(plan, positions=shard.positions(plan.examples))
    everything = list(part.missing({}))
    kept = data.draw(st.sets(st.sampled_from(everything))) if everything else set()
    rows = [
        TallyRow(*p.segment, Votes.of({0: p.segment.draws}), 0.0)
        for number in kept
        for p in part.parts(number)
        if p.counted
    ]
    done: dict[int, Progress] = merge(rows)
    assert list(part.missing(done)) == [number for number in everything if number not in kept]


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(RULES), st.sampled_from([10, 32, 64]), st.integers(2, 6), st.integers(0, 10**6))
def test_a_draw_under_a_rule_has_the_row_of_the_whole_run(
    stop: str, batch: int, count: int, seed: int
) -> None:
    whole, _, _ = play(stop, 700, batch, stored=[], order=random.Random(seed), ahead=3)
    found: dict[object, int] = {}
    for shard in shards(count):
        positions = list(shard.positions(NAMES))
        drawn, _, _ = play(
            stop, 700, batch, stored=[], order=random.Random(seed), ahead=2, positions=positions
        )
        assert {example for example, _, _ in drawn} == {NAMES[p] for p in positions}
        found |= drawn
    assert found == whole


def test_the_batches_of_a_shard_are_full() -> None:
    """Images that all began at one slot would leave the others empty: 94 % with every sixteenth image."""
    total, filled, rows = 1_600, 0, 0
    names, design = list(range(total)), designed("table:0,0.25,0.5", 2_000)
    tracker = Tracker(design, dict.fromkeys(names, 0), {})
    held = set(Shard(3, 16).positions(names))
    blocks = Blocks(names, tracker, {}, 256, 128, bytearray(k not in held for k in names))
    waiting = []
    while True:
        while len(waiting) < 3 and (made := blocks.batch(partly=len(waiting) < 2)):
            waiting.append(made)
        if not waiting:
            break
        rows += 256
        for segment in [part.segment for part in waiting.pop(0) if part.counted]:
            filled += segment.draws
            example, stage, first, draws = segment
            labels = [answer(NAMES[example % 5], stage, d) for d in range(first, first + draws)]
            blocks.finished(TallyRow(example, stage, first, draws, Votes.from_labels(labels), 0.0))
    assert filled / rows > 0.96


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {rule: tmp_path_factory.mktemp("whole") / rule for rule in targets.RULES}
    for rule, directory in found.items():
        targets.run(directory, rule=rule)
    return found


@pytest.mark.parametrize("rule", targets.RULES)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_all_shards_together_are_the_undisturbed_run(
    tmp_path: Path, undisturbed: dict[str, Path], rule: str, count: int
) -> None:
    wanted = counts(undisturbed[rule])
    for shard in shards(count):
        directory = tmp_path / shard.directory
        targets.run(directory, rule=rule, shard=str(shard))
        made = counts(directory)
        assert all(wanted[key] == value for key, value in made.items())
        part = sc.open_run(directory)
        checked = sc.verify(part)
        assert checked.passed
        assert f"SHARD {shard}: only these images of the run's 12" in checked.claim
        assert part.identity == sc.open_run(undisturbed[rule]).identity
        (read,) = sc.open_runs(directory)
        assert (read.shard, read.complete, read.planned) == (str(shard), True, len(part.held()))
    whole = merge_shards([tmp_path / shard.directory for shard in shards(count)], tmp_path / "whole")
    assert counts(whole) == wanted
    check_whole(whole, undisturbed[rule])


def check_whole(merged: Path, undisturbed: Path) -> None:
    """A merged run reads, verifies and hashes as the run that was made in one piece."""
    found, wanted = sc.open_run(merged), sc.open_run(undisturbed)
    assert tally_digest(found) == tally_digest(wanted)
    assert found.specification == wanted.specification
    assert found.shard.whole
    assert sc.verify(found).claim == sc.verify(wanted).claim
    assert found.examples() == wanted.examples()
    assert proved(merged) == proved(undisturbed)


def proved(directory: Path) -> list[object]:
    """Every certificate, whatever it cost."""
    outcomes = sc.open_runs(directory)[0].outcomes
    cosines = [o.feature.m_lower if o.feature else None for o in outcomes]
    return [*cosines, *(replace(o, seconds=0.0, feature=None) for o in outcomes)]


@pytest.mark.parametrize("rule", targets.RULES)
def test_a_shard_killed_and_resumed_is_none_the_worse(
    tmp_path: Path, undisturbed: dict[str, Path], rule: str
) -> None:
    chance, struck = random.Random(5), 0
    for shard in shards(2):
        directory = tmp_path / shard.directory
        while True:
            options = {"rule": rule, "shard": str(shard)}
            process = CONTEXT.Process(target=targets.run, args=(directory,), kwargs=options)
            process.start()
            process.join(chance.uniform(0.02, 0.2) if struck < 4 * shard.number else None)
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            struck += 1
    assert struck >= 3
    check_whole(merge_shards([tmp_path / s.directory for s in shards(2)], tmp_path / "w"), undisturbed[rule])


def test_it_resumes_only_as_what_it_is(tmp_path: Path) -> None:
    targets.run(tmp_path / "run", shard="2/3")
    for other, why in (("1/3", "shard 1/3"), ("2/4", "shard 2/4"), (None, "the whole run")):
        with pytest.raises(SpecificationMismatch, match=f"holds shard 2/3 of this run, and {why}"):
            targets.run(tmp_path / "run", shard=other)
    targets.run(tmp_path / "run", shard="2/3")
    targets.run(tmp_path / "whole")
    with pytest.raises(SpecificationMismatch, match="holds the whole run, and shard 2/3"):
        targets.run(tmp_path / "whole", shard="2/3")


@pytest.mark.parametrize("rule", ["fixed", "table"])
def test_a_merged_run_continues_as_any_run(tmp_path: Path, undisturbed: dict[str, Path], rule: str) -> None:
    parts = [tmp_path / s.directory for s in shards(2)]
    for shard, directory in zip(shards(2), parts, strict=True):
        targets.run(directory, rule=rule, shard=str(shard))
    merge_shards(parts, tmp_path / "whole")
    before = list(sc.open_run(tmp_path / "whole").tallies())
    targets.run(tmp_path / "whole", rule=rule)
    assert list(sc.open_run(tmp_path / "whole").tallies()) == before, "nothing was left to draw"


def test_a_merged_anytime_run_goes_on_with_more_draws(tmp_path: Path) -> None:
    parts = [tmp_path / s.directory for s in shards(3)]
    for shard, directory in zip(shards(3), parts, strict=True):
        targets.run(directory, rule="anytime", shard=str(shard))
    merge_shards(parts, tmp_path / "merged")
    for name in ("merged", "whole"):
        targets.run(tmp_path / name, rule="anytime", n=2_500)
    check_whole(tmp_path / "merged", tmp_path / "whole")


def test_shards_of_an_anytime_run_must_have_gone_equally_far(tmp_path: Path) -> None:
    parts = [tmp_path / s.directory for s in shards(2)]
    for shard, n, directory in zip(shards(2), (1_500, 2_500), parts, strict=True):
        targets.run(directory, rule="anytime", shard=str(shard), n=n)
    with pytest.raises(sc.errors.ShardMismatch, match=r"6 images .* not finished, in shard 1/2.* n = 2500"):
        merge_shards(parts, tmp_path / "merged")
    targets.run(parts[0], rule="anytime", shard="1/2", n=2_500)
    targets.run(tmp_path / "whole", rule="anytime", n=2_500)
    check_whole(merge_shards(parts, tmp_path / "merged"), tmp_path / "whole")


def test_more_shards_than_images(tmp_path: Path, undisturbed: dict[str, Path]) -> None:
    parts = [tmp_path / s.directory for s in shards(14)]
    for shard, directory in zip(shards(14), parts, strict=True):
        targets.run(directory, shard=str(shard))
    empty = sc.open_run(parts[13])
    assert not empty.held()
    assert sc.verify(empty).passed
    assert sc.verify(empty).claim.startswith("Nothing is claimed yet: none of 0 images of shard 14/14")
    assert sc.open_runs(parts[13])[0].complete
    check_whole(merge_shards(parts, tmp_path / "whole"), undisturbed["fixed"])


def prepared(directory: Path, rule: RuleSpec, shard: str | None) -> Job:
    smoothed = sc.SmoothedClassifier(targets.model(), 0.5)
    return prepare(smoothed, targets.images(), directory, rule, batch=32, workers=1, shard=shard)


@pytest.mark.parametrize("rule", ["fixed", "table:0,0.1"])
def test_what_is_left_counts_the_shard_alone(tmp_path: Path, rule: str) -> None:
    spec = RuleSpec.settle("certify", stop=rule, n0=20 if rule == "fixed" else None, n=100)
    each = 120 if rule == "fixed" else 100
    job = prepared(tmp_path / "run", spec, "3/5")
    assert len(job.held()) == 3
    assert job.draws_left() == job.plan.draws == 3 * each
    assert job.estimate().draws == 3 * each
    job.run(quiet=True)
    assert job.draws_left() == 0
    assert prepared(tmp_path / "other", spec, None).draws_left() == 12 * each


def test_images_in_any_order_and_with_any_numbers(tmp_path: Path) -> None:
    """The images of a shard follow from their indices, which a run file knows; not from the data's order."""
    inner = targets.images()
    order = np.random.default_rng(1).permutation(12)

    class Shuffled:
        name, levels, shape, classes = "shuffled", 255, inner.shape, inner.classes

        def __len__(self) -> int:
            return 12

        def __getitem__(self, position: int) -> object:
            example = inner[int(order[position])]
            return replace(example, index=7 * example.index + 3)

    def run(directory: Path, rule: str, shard: str | None) -> None:
        smoothed = sc.SmoothedClassifier(targets.model(), 0.5)
        options = targets.RULES[rule] | {"batch": 32, "workers": 2, "shard": shard}
        sc.certify(smoothed, Shuffled(), directory, **options)  # type: ignore[arg-type]

    for rule in ("fixed", "table"):
        run(tmp_path / rule / "undisturbed", rule, None)
        parts = [tmp_path / rule / s.directory for s in shards(3)]
        for shard, directory in zip(shards(3), parts, strict=True):
            run(directory, rule, str(shard))
            assert sc.verify(sc.open_run(directory)).passed
        check_whole(merge_shards(parts, tmp_path / rule / "merged"), tmp_path / rule / "undisturbed")


def test_predict_has_shards_too(tmp_path: Path) -> None:
    def run(name: str, shard: str | None = None) -> Path:
        smoothed = sc.SmoothedClassifier(targets.model(), 0.5)
        sc.predict(smoothed, targets.images(), tmp_path / name, n=200, batch=32, shard=shard)
        return tmp_path / name

    parts = [run(f"part{number}", f"{number}/2") for number in (1, 2)]
    check_whole(merge_shards(parts, tmp_path / "merged"), run("whole"))


def test_on_an_accelerator_shards_must_be_given_their_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the size is found by trying, two shards could find two, which would be noticed by the merge."""
    monkeypatch.setattr("smoothcert.engine.job.is_accelerator", lambda device: True)
    with pytest.raises(InvalidInput, match="shard 1/2 on an accelerator without a batch size"):
        targets.run(tmp_path / "run", shard="1/2", batch=None)
    assert not (tmp_path / "run").exists()
    for batch in (32, None):  # the second time it is known
        targets.run(tmp_path / "run", shard="1/2", batch=batch)


def test_a_wrong_shard_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    for text in ("0/2", "3/2", "half"):
        with pytest.raises(InvalidInput, match=f"shard .?{text}"):
            targets.run(tmp_path / "run", shard=text)
    assert not (tmp_path / "run").exists()

"""What may be read of a run under a stopping rule, and what is said of one that is not finished."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.runlog.test_store import EXAMPLES, specification

from smoothcert import analysis
from smoothcert.errors import InvalidInput
from smoothcert.runlog import open_run, results, verify
from smoothcert.runlog.specification import RuleSpec
from smoothcert.runlog.store import TallyRow, create_or_resume
from smoothcert.tallies import Votes


def fill(directory: Path, stop: str, *, images: int = 3) -> Path:
    """A run whose first images answered class 0 unanimously, as long as the rule asked."""
    spec = specification(rule=RuleSpec.settle("certify", stop=stop, n=1_000))
    writer = create_or_resume(directory, spec, EXAMPLES, {})
    for example in EXAMPLES[:images]:
        course = spec.design().begin(example.label)
        while (need := course.need) is not None:
            votes = Votes.of({0: need.end - need.first})
            row = TallyRow(example.example, need.stage, need.first, need.end - need.first, votes, 0.1)
            writer.append([row])
            course = course.add(votes)
    writer.close()
    return directory


@pytest.mark.parametrize("stop", ["table:0,0.25", "radius:0.25", "curve:0.1"])
def test_a_rule_that_ended_at_its_alpha_is_not_read_at_another(tmp_path: Path, stop: str) -> None:
    run = fill(tmp_path / "run", stop)
    assert len(results(run).outcomes) == 3
    assert results(run, alpha=0.001) == results(run)
    with pytest.raises(InvalidInput, match=r"make a run with --alpha 0\.01"):
        results(run, alpha=0.01)


@pytest.mark.parametrize("stop", ["fixed", "anytime"])
def test_others_are_and_it_is_marked(tmp_path: Path, stop: str) -> None:
    found = results(fill(tmp_path / "run", stop), alpha=0.01)
    assert found.alpha_post_hoc
    assert len(found.outcomes) == 3


def test_an_unfinished_run_says_that_its_shares_are_biased(tmp_path: Path) -> None:
    biased = "shares so far are biased"
    whole = results(fill(tmp_path / "whole", "table:0,0.25"))
    part = results(fill(tmp_path / "part", "table:0,0.25", images=2))
    fixed = results(fill(tmp_path / "fixed", "fixed", images=2))
    assert biased not in analysis.certified_accuracy([whole]).caption
    assert biased in analysis.certified_accuracy([part]).caption
    assert biased not in analysis.certified_accuracy([fixed]).caption


def test_boundaries_stored_with_other_last_digits_are_the_same(tmp_path: Path) -> None:
    """Another processor rounds the last digits of a sum otherwise; other cuts are another design."""
    run = open_run(fill(tmp_path / "run", "table:0,0.25"))
    run.design_facts["boundaries"][0]["level"] *= 1 + 1e-10
    assert verify(run).passed
    run.design_facts["boundaries"][0]["cuts"][3] += 1
    assert not verify(run).passed

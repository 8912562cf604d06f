"""Stopping rules from noise to run file: how often whole runs claim something, against the exact probability.

The classifier looks at one noisy pixel modulo ten: at this sigma all ten remainders are equally likely to
within 1e-70, and fresh for every draw. So its probabilities are known, whatever the engine does with them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.validity.test_coverage import identical
from tests.validity.walks import probability, verdicts

import smoothcert as sc
from smoothcert.bounds import tail_upper
from smoothcert.certificates.course import Verdict
from smoothcert.certificates.grouped import Grouped
from smoothcert.runlog.results import Outcome

FALSE_ALARM = 1e-6
SEVEN_TENTHS = 0.1312  # a little more than sigma z(.7) = .13110, which no image deserves


def tenths(images: torch.Tensor) -> torch.Tensor:
    """Class 0 with probability .7, class 1 with .3."""
    return (torch.round(images[:, 0, 0, 0] * 255).long() % 10 >= 7).long()


def coin(images: torch.Tensor) -> torch.Tensor:
    return torch.round(images[:, 0, 0, 0] * 255).long() % 2


def agrees(hits: int, trials: int, level: float) -> bool:
    """Neither more nor fewer than the exact probability says."""
    many = hits > 0 and tail_upper(hits, trials, level) < FALSE_ALARM / 2
    few = hits < trials and tail_upper(trials - hits, trials, 1.0 - level) < FALSE_ALARM / 2
    return not many and not few


def exact(directory: Path, p: float, of: Callable[[Verdict], bool], label: int | None = None) -> float:
    design = sc.open_run(directory).specification.design()
    assert isinstance(design, Grouped)
    return probability(verdicts(design, (p, 1.0 - p), label=label), of)


def too_far(outcome: Outcome | Verdict) -> bool:
    proof = outcome.proof if isinstance(outcome, Verdict) else outcome
    return bool((getattr(proof, "radius", None) or 0.0) >= SEVEN_TENTHS)


@pytest.mark.parametrize("bound", ["one", "pair"])
def test_a_run_claims_too_much_as_often_as_its_design(tmp_path: Path, bound: str) -> None:
    trials, alpha = 900, 0.3
    smoothed = sc.SmoothedClassifier(tenths, sigma=0.25)
    stop = f"table:0,{SEVEN_TENTHS}"
    found = sc.certify(
        smoothed, identical(trials), tmp_path / "r", stop=stop, n=120, alpha=alpha, bound=bound
    )
    hits = sum(map(too_far, found.outcomes))
    level = exact(tmp_path / "r", 0.7, too_far)
    assert 0.02 < level <= alpha
    assert agrees(hits, trials, level)
    certified = sum(o.predicted == 0 for o in found.outcomes)
    assert agrees(certified, trials, exact(tmp_path / "r", 0.7, lambda v: v.proof.label == 0))


def test_a_label_aware_run_spends_alpha_on_the_true_class(tmp_path: Path) -> None:
    trials, alpha = 900, 0.2
    smoothed = sc.SmoothedClassifier(coin, sigma=0.25)
    found = sc.certify(
        smoothed, identical(trials), tmp_path / "r", stop="table:0", n=100, alpha=alpha, label_aware=True
    )
    level = exact(tmp_path / "r", 0.5, lambda v: v.proof.label is not None, label=0)
    assert 0.6 * alpha < level <= alpha
    assert agrees(sum(o.predicted is not None for o in found.outcomes), trials, level)
    assert all(o.predicted in (None, 0) for o in found.outcomes)


def test_a_run_of_predictions_is_wrong_as_often_as_its_design(tmp_path: Path) -> None:
    trials, alpha = 900, 0.3
    smoothed = sc.SmoothedClassifier(coin, sigma=0.25)
    found = sc.predict(smoothed, identical(trials), tmp_path / "r", stop="predict", n=100, alpha=alpha)
    level = exact(tmp_path / "r", 0.5, lambda v: v.proof.label is not None)
    assert 0.05 < level <= alpha
    assert agrees(sum(o.predicted is not None for o in found.outcomes), trials, level)


@pytest.mark.parametrize(("stop", "n0"), [("curve:0.5", 20), ("anytime", 20)])
def test_runs_with_a_pilot_claim_too_much_at_most_at_alpha(tmp_path: Path, stop: str, n0: int) -> None:
    trials, alpha = 300, 0.2
    smoothed = sc.SmoothedClassifier(tenths, sigma=0.25)
    found = sc.certify(smoothed, identical(trials), tmp_path / "r", stop=stop, n0=n0, n=300, alpha=alpha)
    wronged = sum(too_far(o) or o.predicted == 1 for o in found.outcomes)
    assert not (wronged and tail_upper(wronged, trials, alpha) < FALSE_ALARM)


def test_single_images_are_certified_at_the_same_level() -> None:
    """``certify`` of one image: numbered streams, so that a hundred calls are a hundred independent images."""
    smoothed = sc.SmoothedClassifier(tenths, sigma=0.25)
    images = torch.full((400, 1, 4, 4), 100, dtype=torch.uint8)
    found = smoothed.certify(images, stop=f"radius:{SEVEN_TENTHS}", n=100, alpha=0.3, example=0)
    wronged = sum(c.radius >= SEVEN_TENTHS or c.label == 1 for c in found)
    assert not (wronged and tail_upper(wronged, 400, 0.3) < FALSE_ALARM)

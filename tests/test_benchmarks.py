"""The benchmarks' own arithmetic: the array form of the stopping rules decides as the courses do."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from smoothcert.bounds import clopper_pearson_lower
from smoothcert.bounds.sequential import boundary
from smoothcert.bounds.sequential.boundary import crossing_probability
from smoothcert.certificates.course import Course, Design, Verdict
from smoothcert.certificates.gaussian import Certificate
from smoothcert.certificates.grouped import Grouped
from smoothcert.runlog.specification import RuleSpec
from smoothcert.tallies import Votes

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from published import RARE, Images, N, Paths, _p_top, alpha_of, votes
from replay import draws_read, replay

SIGMA = 0.25
GRID = (0.0, 0.25, 0.5, 0.75)
PILOT = (100, 1_000)
RULES = {
    "table": RuleSpec.settle("certify", stop="table:0,0.25,0.5,0.75", n=20_000),
    "table pair": RuleSpec.settle("certify", stop="table:0,0.25,0.5,0.75", n=20_000, bound="pair"),
    "aware": RuleSpec.settle("certify", stop="table:0,0.25,0.5", n=20_000, label_aware=True),
    "aware pair": RuleSpec.settle("certify", stop="table:0,0.25", n=20_000, label_aware=True, bound="pair"),
    "radius": RuleSpec.settle("certify", stop="radius:0.25", n=20_000),
    "radius pair": RuleSpec.settle("certify", stop="radius:0.25", n=20_000, bound="pair"),
    "predict": RuleSpec.settle("predict", stop="predict"),
    "predict fixed": RuleSpec.settle("predict", n=2_000),
    "fixed": RuleSpec.settle("certify", n=5_000),
    "fixed pair": RuleSpec.settle("certify", n=5_000, bound="pair"),
    "curve": RuleSpec.settle("certify", stop="curve:0.02", n=20_000),
    "curve pair": RuleSpec.settle("certify", stop="curve:0.02", n=20_000, bound="pair"),
    "anytime": RuleSpec.settle("certify", stop="anytime", n=5_000),
}


def some_images(number: int) -> Images:
    """Every kind of image: sure, near each radius, near a tie, with a strong rival and with a weak one."""
    rng = np.random.default_rng(3)
    top = np.concatenate([rng.uniform(0.3, 1.0, number // 2), 1.0 - 10 ** rng.uniform(-5, -0.5, number // 2)])
    b = np.minimum((1.0 - top) * rng.choice([1.0, 0.7, 0.4], len(top)), top)
    c = np.minimum((1.0 - top - b) * 0.6, b)
    p = np.stack([top, b, c, np.maximum(0.0, 1.0 - top - b - c)], axis=1)
    return Images("made up", SIGMA, p, rng.integers(0, 2, len(top)))


def course_of(design: Design, image: int, truth: int, pilot: Paths, paths: Paths) -> Verdict:
    """The verdict of a course that is fed the votes of one image."""
    course: Course = design.begin(truth)
    while need := course.need:
        source = pilot if need.stage == "selection" else paths
        before = source.at(need.first)[:, image] if need.first else np.zeros(4, dtype=int)
        new = source.at(need.end)[:, image] - before
        rare = {3 + j: int((before[3] + new[3] + j) // RARE - (before[3] + j) // RARE) for j in range(RARE)}
        course = course.add(Votes.of(rare | {c: int(new[c]) for c in range(3)}))
    verdict = course.verdict()
    assert verdict is not None
    return verdict


@pytest.mark.parametrize("name", RULES)
def test_arrays_decide_as_courses(name: str) -> None:
    images, rng = some_images(60), np.random.default_rng(4)
    design = RULES[name].design(alpha=0.001, sigma=SIGMA, noise_error=0.0)
    pilot = votes(images, PILOT, rng)
    looks = draws_read(design, pilot)
    looks = (128, 192, 288, 432, 656, 992, 1488, 2240, 3360, 5000) if name == "anytime" else looks
    paths = votes(images, looks, rng)
    found = replay(design, images.label, pilot, paths, GRID)
    for image in range(len(images)):
        verdict = course_of(design, image, int(images.label[image]), pilot, paths)
        label = -1 if verdict.proof.label is None else verdict.proof.label
        assert (found.label[image], found.draws[image]) == (label, verdict.draws)
        if isinstance(verdict.proof, Certificate) and label >= 0:
            proved = [radius for radius in GRID if radius <= verdict.proof.radius]
            assert [radius for radius in GRID if radius <= found.radius[image]] == proved
            if name != "anytime":
                assert found.radius[image] == pytest.approx(verdict.proof.radius, abs=2e-6)
    assert len(set(found.draws)) > 3 or name in ("predict fixed", "fixed", "fixed pair", "anytime")
    assert {-1, 0} <= set(found.label)  # the images ask for both answers


def test_votes_have_the_probabilities_given() -> None:
    images = some_images(40)
    paths = votes(images, (10, 4_000, 100_000), np.random.default_rng(0))
    assert (paths.counts.sum(axis=0) == np.array([10, 4_000, 100_000])[:, None]).all()
    shares = paths.at(100_000).T / 100_000
    assert np.abs(shares - images.p).max() < 5.0 * 0.5 / np.sqrt(100_000)


@pytest.mark.parametrize(("k", "alpha"), [(51_000, 0.001), (90_000, 0.001), (99_990, 0.001), (90_000, 0.01)])
def test_a_logged_radius_gives_back_its_count(k: int, alpha: float) -> None:
    z = ndtri(clopper_pearson_lower(k, N, alpha))
    assert _p_top(np.array([z]), alpha)[0] * N == pytest.approx(k, abs=0.01)


def test_unanimous_logs_say_their_alpha() -> None:
    assert alpha_of(np.array([1.0, 3.912])) == 0.01
    assert alpha_of(np.array([1.0, 3.82])) == 0.001


@pytest.mark.parametrize(
    ("looks", "alphas"),
    [
        ((25_000, 50_000, 75_000, 100_000), 3.1),
        ((1_000, 4_000, 20_000, 100_000), 3.6),
        (tuple(range(1_000, 100_001, 1_000)), 13.1),
    ],
)
def test_what_the_page_says_of_peeking(looks: tuple[int, ...], alphas: float) -> None:
    cuts = [next(k for k in range(n // 2, n + 1) if binom.sf(k - 1, n, 0.5) <= 0.001) for n in looks]
    assert crossing_probability(0.5, looks, cuts) / 0.001 == pytest.approx(alphas, abs=0.06)


def test_what_the_page_says_of_floors() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-many-samples.md").read_text()
    design = RuleSpec.settle("certify", stop="table").design(alpha=0.001, sigma=1.0, noise_error=0.0)
    assert isinstance(design, Grouped)
    stated = [
        [int(cell.replace(",", "")) for cell in line.split("|")[2:-1]]
        for line in page.splitlines()
        if line.startswith(("| at least", "| the table rule, first look"))
    ]
    for z, least, first in zip((1.0, 2.0, 2.5, 3.0, 3.5), *stated, strict=True):
        p = float(ndtr(z))
        assert p**least <= 0.001 < p ** (least - 1)
        found = boundary(p, design.looks, 0.00095)
        assert next(n for n, cut in zip(design.looks, found.cuts, strict=True) if cut <= n) == first

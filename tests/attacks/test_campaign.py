"""False certificates are found out, true ones are not accused, and no judge uses an attacker's draw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.attacks.models import GREY, SIGMA, Extremal, Wavy, direction, pictures

from smoothcert.attacks import Search, attack_answers, attack_features, campaign, success_rate
from smoothcert.attacks.judge import judge_features, judge_votes
from smoothcert.attacks.record import VoteRecord, by_chance, claimed_share, plain
from smoothcert.certificates import cosine as bounds
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Example
from smoothcert.smoothing import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder
from smoothcert.smoothing.noise import GridNoise
from smoothcert.smoothing.streams import STAGES, Segment

SEARCH = Search(steps=12, eot=16, restarts=2)
JUDGING = campaign.Judging(n=1_000, most=32_000)
MODEL = Extremal(0.9, 0.5)


@dataclass(frozen=True)
class Says:
    """A certificate of a feature with a norm of its own choice, by a formula of its own choice."""

    m_lower: float
    formula: Any = bounds.exact
    decisions: tuple[Any, ...] = ()

    def cosine_lower(self, radius: float) -> float:
        return float(self.formula(self.m_lower, radius / SIGMA))

    def paper_cosine_lower(self, radius: float) -> float:
        return 0.0


@dataclass(frozen=True)
class Decides:
    rule: str
    label: int | None
    radius: float


def attacked(claim: Says, *, radius: float = 0.5 * SIGMA, **more: Any) -> Any:
    smoothed = SmoothedEncoder(MODEL.encoder(), SIGMA, levels=255)
    example = Example(4, GREY, 0, "grey")
    (record,) = campaign.features(
        smoothed, [(example, claim, radius)], search=SEARCH, judging=JUDGING, **more
    )
    return record


def test_a_true_bound_that_is_attained_survives_its_attack() -> None:
    record = attacked(Says(0.899))
    assert record.broken == ()
    assert record.norm == pytest.approx(0.9, abs=0.02)
    assert record.lower <= MODEL.cosine(0.5) + 0.01
    assert record.upper_sure >= record.certified


@pytest.mark.parametrize(
    "claim",
    [
        Says(0.97),  # an inflated norm
        Says(0.899, lambda m, ratio: bounds.exact(m, 0.5 * ratio)),  # a radius in the wrong units
        Says(0.899, lambda m, ratio: bounds.covariance(m, 0.02, ratio)),  # a spread nobody bounded
    ],
    ids=["norm", "units", "covariance"],
)
def test_false_certificates_are_broken(claim: Says) -> None:
    record = attacked(claim)
    assert record.broken == ("cosine",)
    assert record.upper_sure < record.certified
    assert plain(record)["broken"] == ["cosine"]


def test_answers_of_a_head_are_judged_by_each_rule() -> None:
    """The head's boundary lies between F(0) and F(1/2): by attack the answer changes, well within .5 sigma."""
    prototypes = np.array([[np.cos(a), np.sin(a)] for a in (0.55, -0.7)])
    near = tuple(Decides(rule, 0, 0.5 * SIGMA) for rule in ("margin", "dual"))
    record = attacked(Says(0.5, decisions=near), prototypes=prototypes, goal="label")
    assert record.answers == (0, 1)
    assert record.broken == ("margin", "dual")
    far = tuple(Decides(rule, 0, 0.2 * SIGMA) for rule in ("votes", "margin", "dual"))
    assert attacked(Says(0.5, decisions=far), prototypes=prototypes, goal="label").broken == ()
    abstained = (Decides("margin", None, 0.0),)
    assert attacked(Says(0.5, decisions=abstained), prototypes=prototypes, goal="label").broken == ()


def test_goals_that_need_a_head_are_refused_without_one() -> None:
    for goal in ("label", "target"):
        with pytest.raises(InvalidInput, match=f"goal = '{goal}' without prototypes"):
            attacked(Says(0.5), goal=goal)
    with pytest.raises(InvalidInput, match="the classes 0 to 1"):
        attacked(Says(0.5), goal="target", target=2, prototypes=np.eye(2))


def halfspace(distance: float) -> Any:
    """Class 1 on the near side of a plane at this distance: its certified radius is just that."""
    along = torch.from_numpy(direction()).float()

    def linear(images: torch.Tensor) -> torch.Tensor:
        score = ((images - 128 / 255) * along).flatten(1).sum(dim=1) + distance
        return torch.stack([torch.zeros_like(score), 10 * score], dim=1)

    return linear


def votes(certified: float, radius: float, *, alone: bool = True, label: int | None = 1) -> VoteRecord:
    smoothed = SmoothedClassifier(halfspace(0.2), SIGMA, levels=255)
    claim = campaign.VoteClaim(label, certified, alone)
    work = [(Example(4, GREY, 1, "grey"), claim, radius)]
    (record,) = campaign.votes(smoothed, work, classes=2, search=SEARCH, judging=JUDGING)
    return record


def test_a_true_radius_survives_and_a_false_one_does_not() -> None:
    sound = votes(0.195, 0.195)
    assert sound.broken == ()
    assert sound.robust
    false = votes(0.3, 0.3)
    assert false.broken == ("label", "probability")
    assert not false.robust
    assert false.answer == 0


def test_an_inflated_probability_is_seen_before_the_label_changes() -> None:
    """The plane is at .2, the claim says .3: at distance .1 class 1 should still have Phi(.8), and has Phi(.4)."""
    record = votes(0.3, 0.1)
    assert record.answer == 1
    assert record.broken == ("probability",)
    assert votes(0.3, 0.1, alone=False).broken == ()  # a pair bound claims no probability
    assert claimed_share(0.3, 0.1, SIGMA, 0.0) == pytest.approx(0.78814, abs=1e-4)


def test_beyond_the_radius_nothing_was_claimed() -> None:
    record = votes(0.15, 0.3)
    assert not record.covered
    assert record.broken == ()
    assert votes(0.0, 0.3, label=None).broken == ()


def test_chance_is_stated() -> None:
    sound, false = votes(0.195, 0.195), votes(0.3, 0.3)
    assert by_chance([sound], 0.001) == 1.0
    many = [replace(sound, example=k) for k in range(99)] + [false]
    assert by_chance(many, 0.001) == pytest.approx(
        1 - 0.999**99, rel=1e-3
    )  # example 4 is among them: 99 images
    assert by_chance([replace(false, example=k) for k in range(5)], 0.001) == pytest.approx(1e-15, rel=1e-3)


class Recorded(GridNoise):
    """The certificate's noise, noting what is drawn."""

    seen: list[Segment] = []  # noqa: RUF012

    def noisy(self, prepared: Any, seed: int, segment: Segment) -> Any:
        self.seen.append(segment)
        return super().noisy(prepared, seed, segment)


def test_no_draw_of_the_attack_judges_it() -> None:
    Recorded.seen.clear()
    encoder, classifier = (
        SmoothedEncoder(Wavy(6), SIGMA, levels=255),
        SmoothedClassifier(Wavy(3), SIGMA, levels=255),
    )
    encoder.noise = classifier.noise = Recorded(SIGMA, 255)
    images = pictures(2)
    found = attack_features(encoder, images, radius=0.2, search=Search(steps=3, eot=4, restarts=2))
    assert {segment.stage for segment in Recorded.seen} == {"attack"}
    Recorded.seen.clear()
    judge_features(encoder, images[0], found[0].image, n=100)
    judge_votes(classifier, found[0].image, 0, classes=3, n=100, most=200)
    assert {segment.stage for segment in Recorded.seen} == {"judge", "judge_clean"}
    assert len(set(STAGES.values())) == len(STAGES)
    assert {"attack", "attack_start", "judge", "judge_clean", "estimation", "selection"} <= set(STAGES)


def test_both_images_are_judged_with_noise_of_their_own() -> None:
    """With common noise the pairs would be dependent, and the cosine of an image with itself above the truth."""
    smoothed = SmoothedEncoder(Wavy(6, scale=2.0), SIGMA, levels=255)
    image = pictures(1)[0]
    mean = smoothed.draws(image, 4_000, stage="prediction").mean(axis=0)
    found = judge_features(smoothed, image, image, n=2_000)
    assert found.estimate == pytest.approx(1.0, abs=0.02)
    assert found.norm == pytest.approx(float(np.linalg.norm(mean)), abs=0.02)
    assert found.norm < 0.95
    assert found.lower > 0.8


def test_votes_at_an_attacked_image_are_judged_twice_at_most() -> None:
    smoothed = SmoothedClassifier(halfspace(-0.01), SIGMA, levels=255)  # class 1 has Phi(-.04) = 48.4 %
    found = judge_votes(smoothed, GREY, 1, classes=2, n=200, most=4_000)
    assert found.votes.total in (200, 4_000)
    sure = judge_votes(smoothed, GREY, 0, classes=2, n=200, most=4_000)
    assert sure.p_value > 1e-6


def test_answers_are_attacked_by_any_loss() -> None:
    net = Wavy(4, scale=1.5)
    images = torch.from_numpy(pictures(6)).float() / 255
    right = net(images).argmax(dim=1)

    def loss(shown: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(net(shown), right, reduction="none")

    for method in ("pgd", "apgd"):
        search = Search(method=method, steps=15, restarts=2)  # type: ignore[arg-type]
        found = attack_answers(loss, images, radius=1.0, search=search)
        again = attack_answers(loss, images, radius=1.0, search=search)
        assert torch.equal(found.images, again.images)
        assert (found.after > found.before).all()
        assert (found.distances <= 1.0).all()
        levels = found.images.double() * 255
        assert torch.allclose(levels, levels.round(), atol=1e-4)
        assert found.after.tolist() == pytest.approx(loss(found.images).tolist(), rel=1e-5)
        changed, correct = success_rate(
            right.tolist(), net(found.images).argmax(dim=1).tolist(), right.tolist()
        )
        assert correct == 6
        assert changed >= 4


def test_success_is_counted_among_the_right_answers() -> None:
    assert success_rate(
        ["yes", "no", "yes", "no"], ["no", "no", "yes", "yes"], ["yes", "no", "no", "no"]
    ) == (2, 3)
    with pytest.raises(InvalidInput, match="one by one"):
        success_rate(["yes"], [], ["yes"])


def test_losses_and_images_that_cannot_be_are_refused() -> None:
    images = torch.rand(2, 1, 8, 8)
    with pytest.raises(InvalidInput, match="one number for each image"):
        attack_answers(lambda shown: shown.mean(), images, radius=0.1)
    with pytest.raises(InvalidInput, match="white-box"):
        attack_answers(lambda shown: torch.zeros(len(shown)), images, radius=0.1)
    with pytest.raises(InvalidInput, match=r"\[0, 1\]"):
        attack_answers(lambda shown: shown.flatten(1).sum(dim=1), 2 * images + 1, radius=0.1)

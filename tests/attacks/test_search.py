"""Attackers find what is known to be the best attack, with exact gradients, and twice the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.attacks.models import GREY, SIGMA, Extremal, Jitter, Wavy, direction, pictures

from smoothcert.attacks import Search, aims, attack_features, attack_votes, soft_votes
from smoothcert.attacks.ball import Ball
from smoothcert.attacks.expectation import Expectation, from_loss
from smoothcert.attacks.search import _checkpoints, climb, directions
from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder
from smoothcert.smoothing.noise import make_noise

METHODS = ("pgd", "apgd")


def shift(image: Any) -> float:
    """How far an attacked image is along the models' direction, in units of sigma."""
    return float((((image.astype(np.float64) - GREY) / 255) * direction()).sum() / SIGMA)


@pytest.mark.parametrize(
    ("m", "ratio", "bound"), [(0.9, 0.5, 0.9706), (0.7, 0.5, 0.8846), (0.95, 1.0, 0.9249)]
)
def test_the_extremal_map_is_what_theory_says(m: float, ratio: float, bound: float) -> None:
    model = Extremal(m, ratio)
    assert math.cos(model.solution[0]) == pytest.approx(bound, abs=6e-5)
    assert model.feature(0.0) == pytest.approx([m, 0.0], abs=1e-5)
    assert model.cosine(ratio) == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("m", "ratio"), [(0.9, 0.5), (0.95, 1.0)])
def test_the_exact_bound_is_attained_by_attack(method: Any, m: float, ratio: float) -> None:
    """The tightness of THEORY 3.3, found by gradients alone: the angle to a few per cent, and never more."""
    model = Extremal(m, ratio)
    smoothed = SmoothedEncoder(model.encoder(), SIGMA, levels=255)
    search = Search(method=method, steps=20, eot=32, restarts=2)
    (found,) = attack_features(smoothed, GREY[None], radius=ratio * SIGMA, search=search)
    turned = math.acos(model.cosine(shift(found.image)))
    best = math.acos(model.cosine(ratio))
    assert 0.95 * best <= turned <= best + 1e-4
    assert found.distance <= ratio * SIGMA


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_classifier_is_beaten_just_beyond_its_radius(method: Any) -> None:
    """g = f for a linear classifier, its radius is its distance: nothing flips before, everything after."""
    along = torch.from_numpy(direction()).float()

    def linear(images: Any) -> Any:
        score = ((images - 128 / 255) * along).flatten(1).sum(dim=1) + 0.2
        return torch.stack([torch.zeros_like(score), 4 * score], dim=1)

    smoothed = SmoothedClassifier(linear, SIGMA, levels=255)
    for radius, flips in ((0.19, False), (0.21, True)):
        search = Search(method=method, steps=10, eot=32)
        (found,) = attack_votes(smoothed, GREY[None], [1], radius=radius, search=search)
        moved = shift(found.image) * SIGMA
        assert moved < -0.98 * radius
        assert (moved + 0.2 < 0.0) == flips


def expectation(rows: Any, aim: Any, *, eot: int, batch: int, stochastic: bool = False) -> Expectation:
    search = Search(eot=eot, batch=batch, fresh=True, seed=4)
    return Expectation(rows, make_noise("grid", SIGMA, 255), aim, [3, 8], search, stochastic=stochastic)


@pytest.mark.parametrize("denoiser", [None, Jitter()])
@pytest.mark.parametrize("goal", ["away", "towards", "across", "unlikely"])
def test_gradients_are_those_of_finite_differences(goal: str, denoiser: Any) -> None:
    smoothed = SmoothedEncoder(Wavy(6), SIGMA, denoiser=denoiser, levels=255)
    rows = smoothed.network.differentiable
    aimed = torch.eye(6)[:2] + 0.1
    labels = torch.tensor([0, 1])
    soft = soft_votes(torch.eye(6), temperature=0.3)
    aim = {
        "away": aims.away(aimed),
        "towards": aims.towards(aimed),
        "across": aims.across(torch.eye(6), labels),
        "unlikely": aims.unlikely(labels),
    }[goal]
    asked = (lambda noisy, draws: soft(rows(noisy, draws), None)) if goal == "unlikely" else rows
    objective = expectation(asked, aim, eot=8, batch=64, stochastic=denoiser is not None)
    images = torch.from_numpy(pictures(2)).float() / 255
    _, gradient = objective(images, 5)
    for seed in range(5):
        way = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
        step = 2e-2 * way / way.flatten(1).norm(dim=1)[:, None, None, None]
        up, down = objective(images + step, 5)[0], objective(images - step, 5)[0]
        slope = (gradient * step).flatten(1).sum(dim=1)
        assert ((up - down) / 2).tolist() == pytest.approx(slope.tolist(), rel=0.02, abs=2e-5)


@pytest.mark.parametrize("denoiser", [None, Jitter()])
def test_small_batches_give_the_same_values_and_gradients(denoiser: Any) -> None:
    smoothed = SmoothedEncoder(Wavy(6), SIGMA, denoiser=denoiser, levels=255)
    images = torch.from_numpy(pictures(2)).float() / 255
    aim = aims.away(torch.eye(6)[:2] + 0.1)
    found = [
        expectation(
            smoothed.network.differentiable, aim, eot=12, batch=batch, stochastic=denoiser is not None
        )(images, 1)
        for batch in (64, 24, 5, 1)
    ]
    for value, gradient in found[1:]:
        assert torch.allclose(value, found[0][0], atol=1e-6)
        assert torch.allclose(gradient, found[0][1], atol=1e-6, rtol=1e-4)


def test_the_attackers_noise_is_the_certificates_and_each_step_has_its_own() -> None:
    seen: list[torch.Tensor] = []

    def rows(noisy: torch.Tensor, draws: Any) -> torch.Tensor:
        seen.append(noisy.detach().clone())
        return noisy.flatten(1)

    images = torch.from_numpy(pictures(2)).float() / 255
    objective = expectation(rows, aims.towards(torch.ones(2, 64)), eot=400, batch=10_000)
    objective(images, 0)
    objective(images, 1)
    objective(images, 1)
    added = [batch - images.repeat_interleave(400, dim=0) for batch in seen]
    assert torch.equal(added[1], added[2])
    assert not torch.equal(added[0], added[1])
    assert not torch.equal(added[0][:400], added[0][400:])
    assert float(added[0].std()) == pytest.approx(SIGMA, rel=0.02)
    assert torch.allclose(added[0] * 255, (added[0] * 255).round(), atol=1e-3)
    same = Expectation(
        rows,
        make_noise("grid", SIGMA, 255),
        aims.towards(torch.ones(2, 64)),
        [3, 8],
        Search(method="apgd", eot=4),
    )
    seen.clear()
    same(images, 0)
    same(images, 9)
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_names_an_attack(method: Any) -> None:
    smoothed = SmoothedEncoder(Wavy(6), SIGMA, levels=255)
    images = pictures(3)

    def attacked(seed: int) -> list[bytes]:
        search = Search(method=method, steps=5, eot=4, restarts=2, seed=seed)
        return [
            found.image.tobytes() for found in attack_features(smoothed, images, radius=0.3, search=search)
        ]

    assert attacked(1) == attacked(1)
    assert attacked(1) != attacked(2)


def test_images_attacked_together_are_attacked_each_by_itself() -> None:
    smoothed = SmoothedEncoder(Wavy(6), SIGMA, levels=255)
    images, search = pictures(3), Search(steps=5, eot=8)
    together = attack_features(smoothed, images, radius=[0.1, 0.2, 0.3], search=search, examples=[7, 5, 9])
    for k, name in enumerate([7, 5, 9]):
        radius = 0.1 * (k + 1)
        (alone,) = attack_features(smoothed, images[k : k + 1], radius=radius, search=search, examples=[name])
        difference = np.abs(alone.image.astype(int) - together[k].image.astype(int))
        assert (difference > 1).mean() == 0.0
        assert (difference > 0).mean() < 0.2  # rounding of the network's batches alone


@pytest.mark.parametrize("method", METHODS)
def test_more_effort_finds_more(method: Any) -> None:
    """On a curved objective 30 steps beat 1, and both beat a random direction."""
    smoothed = SmoothedEncoder(Wavy(8, scale=1.5), 0.1, levels=255)
    images = pictures(8)
    means = [
        np.mean([p.value for p in attack_features(smoothed, images, radius=0.5, search=search)])
        for search in (Search(method=method, steps=1, eot=16), Search(method=method, steps=30, eot=16))
    ]
    assert means[1] > means[0] + 0.02


def test_restarts_never_lose() -> None:
    smoothed = SmoothedEncoder(Wavy(8, scale=2.0), 0.1, levels=255)
    images = pictures(4)
    one, four = (
        [
            p.value
            for p in attack_features(smoothed, images, radius=0.5, search=Search(steps=4, eot=4, restarts=k))
        ]
        for k in (1, 4)
    )
    assert all(b >= a - 1e-6 for a, b in zip(one, four, strict=True))
    assert max(b - a for a, b in zip(one, four, strict=True)) > 1e-3


@pytest.mark.parametrize("goal", ["class", "feature"])
def test_targeted_attacks_go_where_they_are_told(goal: str) -> None:
    if goal == "class":
        smoothed = SmoothedClassifier(Wavy(5, scale=1.5), 0.1, levels=255)
        images, search = pictures(4), Search(steps=15, eot=8)
        found = attack_votes(smoothed, images, [3] * 4, targets=[2] * 4, radius=2.0, search=search)
        before = smoothed.network.labels(images.astype(np.float32) / 255)
        after = smoothed.network.labels(np.stack([p.image for p in found]).astype(np.float32) / 255)
        assert (after == 2).sum() >= 3 > (before == 2).sum()
        return
    encoder = SmoothedEncoder(Wavy(6), 0.1, levels=255)
    images = pictures(3)
    aimed = torch.eye(6)[[1] * 3]
    before, after = (
        encoder.encode(each, n=400, example=[0, 1, 2])[:, 1]
        for each in (
            images,
            np.stack(
                [
                    p.image
                    for p in attack_features(
                        encoder, images, radius=1.0, goal=aims.towards(aimed), search=Search(eot=8)
                    )
                ]
            ),
        )
    )
    assert (after > before + 0.1).all()


def test_apgd_halves_its_step_where_croce_and_hein_do() -> None:
    assert sorted(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99, 105]


def test_both_methods_solve_a_quadratic_with_a_known_solution() -> None:
    """The highest point of -|x - c|^2 in a ball that does not reach c is on the straight way there."""
    centre = torch.full((2, 1, 4, 4), 0.5)
    goal = torch.rand(centre.shape, generator=torch.Generator().manual_seed(0))
    objective = from_loss(lambda images: -((images - goal) ** 2).flatten(1).sum(dim=1))
    around = Ball.around(centre, 0.2, None)
    best = centre + 0.2 * directions(goal - centre)
    for method in METHODS:
        found = climb(Search(method=method, steps=60), objective, around, centre)
        assert (found - best).flatten(1).norm(dim=1).max() < 0.01


def test_steps_become_short_enough_for_a_solution_inside_the_ball() -> None:
    centre = torch.full((2, 1, 4, 4), 0.5)
    goal = centre + 0.1 * directions(torch.randn(centre.shape, generator=torch.Generator().manual_seed(0)))
    objective = from_loss(lambda images: -((images - goal) ** 2).flatten(1).sum(dim=1))
    for method in METHODS:
        found = climb(Search(method=method, steps=60), objective, Ball.around(centre, 0.5, None), centre)
        assert (found - goal).flatten(1).norm(dim=1).max() < 0.02


def test_no_gradient_is_no_direction() -> None:
    gradient = torch.stack(
        [torch.zeros(1, 2, 2), torch.full((1, 2, 2), torch.nan), torch.full((1, 2, 2), 1e-30)]
    )
    found = directions(gradient)
    assert found[:2].abs().max() == 0
    assert float(found[2].norm()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "encoder",
    [
        lambda images: torch.from_numpy(images.detach().numpy().reshape(len(images), -1)),
        lambda images: (images > 0.5).float().flatten(1) + torch.zeros(1, requires_grad=True),
    ],
    ids=["numpy", "detached from the images"],
)
def test_black_boxes_are_refused_with_what_to_do(encoder: Any) -> None:
    smoothed = SmoothedEncoder(encoder, SIGMA, levels=255)
    with pytest.raises(InvalidInput, match=r"white-box.*surrogate="):
        attack_features(smoothed, pictures(1), radius=0.25, search=Search(steps=1, eot=2))


def test_a_black_box_can_be_attacked_through_the_same_model_in_torch() -> None:
    net = Wavy(6)

    def opaque(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(net(images).detach().numpy().copy())

    box, same = SmoothedEncoder(opaque, SIGMA, levels=255), SmoothedEncoder(net, SIGMA, levels=255)
    images, search = pictures(2), Search(steps=4, eot=4)
    through = attack_features(box, images, radius=0.3, search=search, surrogate=same)
    direct = attack_features(same, images, radius=0.3, search=search)
    assert [p.image.tobytes() for p in through] == [p.image.tobytes() for p in direct]


def test_classifiers_of_labels_are_refused() -> None:
    smoothed = SmoothedClassifier(lambda images: images.flatten(1).argmax(dim=1) % 3, SIGMA, levels=255)
    with pytest.raises(InvalidInput, match="labels have no slope"):
        attack_votes(smoothed, pictures(1), [0], radius=0.25, search=Search(steps=1, eot=2))


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"eot": 0}, {"restarts": 0}, {"batch": 0}, {"step": 0.0}, {"steps": 1.5}]
)
def test_efforts_that_cannot_be_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        Search(**wrong)


def test_unknown_methods_and_bad_images_are_refused() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'pgd'"):
        Search(method="pdg")  # type: ignore[arg-type]
    smoothed = SmoothedEncoder(Wavy(6), SIGMA, levels=255)
    for radius in (0.0, -0.1, math.nan):
        with pytest.raises(InvalidInput, match="radius"):
            attack_features(smoothed, pictures(1), radius=radius)
    with pytest.raises(InvalidInput, match="B, C, H, W"):
        attack_features(smoothed, pictures(1)[0], radius=0.1)
    with pytest.raises(InvalidInput, match="between grey levels"):
        attack_features(smoothed, np.full((1, 1, 8, 8), 0.301, dtype=np.float32), radius=0.1)

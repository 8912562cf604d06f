"""Smoothed encoders whose smoothed feature is known exactly: no certified cosine ever exceeds the true one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch import Tensor

import smoothcert as sc
from smoothcert.errors import InvalidInput, ModelOutputError, SmoothcertError
from smoothcert.runlog.specification import HeadSpec
from smoothcert.smoothing.encoder import head_spec
from smoothcert.smoothing.features import FeatureNetwork, unit_rows

SHAPE = (1, 4, 4)
SIGMA = 0.5


class Step:
    """(cos a, sin a) on one side of a hyperplane through x = 1/2 + offset, (cos a, -sin a) on the other."""

    def __init__(self, angle: float, offset: float = 0.0) -> None:
        self.angle, self.offset = angle, offset

    def __call__(self, images: Tensor) -> Tensor:
        side = torch.where(images.flatten(1).mean(dim=1) * 4 - 2.0 >= self.offset, 1.0, -1.0)
        turned = self.angle * side
        return 3.0 * torch.stack([turned.cos(), turned.sin()], dim=1)

    def smoothed(self, shift: float) -> np.ndarray:
        """F at distance ``shift`` from the grey image along the normal."""
        up = ndtr((shift - self.offset) / SIGMA)
        return np.array([math.cos(self.angle), math.sin(self.angle) * (2.0 * up - 1.0)])


def grey() -> np.ndarray:
    return np.full(SHAPE, 0.5, dtype=np.float32)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("angle", [0.3, 0.9, 1.3])
def test_a_step_is_never_certified_beyond_what_it_keeps(angle: float) -> None:
    encoder = Step(angle)
    smoothed = sc.SmoothedEncoder(encoder, SIGMA, noise="float")
    found = smoothed.certify(grey(), n=20_000, alpha=0.01)
    truth = float(np.linalg.norm(encoder.smoothed(0.0)))
    assert truth - 0.02 < found.m_lower <= truth
    for radius in np.linspace(0.0, 1.5, 16):
        worst = min(cosine(encoder.smoothed(0.0), encoder.smoothed(s * radius)) for s in (-1.0, 1.0))
        assert found.cosine_lower(radius) <= worst + 1e-9
        assert found.paper_cosine_lower(radius) <= max(0.0, worst) + 1e-9
        assert found.cosine_lower(radius) >= 0.0
    assert found.cosine_lower(0.1) > (0.9 if angle < 1.0 else 0.0)


def test_the_certified_radius_is_where_the_cosine_is_reached() -> None:
    found = sc.SmoothedEncoder(Step(0.3), SIGMA, noise="float").certify(grey(), n=2_000)
    radius = found.radius(0.8)
    assert radius > 0.0
    assert found.cosine_lower(radius) >= 0.8
    assert found.cosine_lower(radius * 1.01) < 0.8
    assert found.cosine_lower(50.0) == 0.0, "beyond what can be certified it abstains"


def test_the_served_feature_has_a_bound_of_its_own_and_it_is_lower() -> None:
    smoothed = sc.SmoothedEncoder(Step(0.3), SIGMA, noise="float")
    found = smoothed.certify(grey(), n=5_000, served=2_000)
    assert 0.0 < found.served_cosine_lower(0.1) < found.cosine_lower(0.1)
    served = smoothed.encode(grey(), n=2_000)
    assert served.shape == (2,)
    assert cosine(served, Step(0.3).smoothed(0.0)) > 0.99
    with pytest.raises(InvalidInput, match="served="):
        smoothed.certify(grey(), n=100).served_cosine_lower(0.1)


def test_the_same_names_give_the_same_certificate_and_batches_change_nothing() -> None:
    smoothed = sc.SmoothedEncoder(linear(), SIGMA, levels=255)
    image = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    one, again = (smoothed.certify(image, n=300, seed=3, batch=b) for b in (32, 32))
    assert one.m_lower == again.m_lower
    other = smoothed.certify(image, n=300, seed=3, batch=64)
    assert other.m_lower == pytest.approx(one.m_lower, abs=1e-6)
    assert smoothed.certify(image, n=300, seed=4).m_lower != one.m_lower


def linear(width: int = 6) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, width), torch.nn.Tanh())


def test_draws_of_a_certificate_serving_and_checks_never_share_noise() -> None:
    smoothed = sc.SmoothedEncoder(linear(), SIGMA, noise="float")
    rows = {
        stage: smoothed.draws(grey(), 40, stage=stage)
        for stage in ("selection", "estimation", "prediction", "check")
    }
    for one, first in rows.items():
        for other, second in rows.items():
            assert one == other or np.abs(first - second).max() > 1e-3
    assert np.allclose(smoothed.encode(grey(), n=40), rows["prediction"].mean(axis=0))


def test_the_clean_feature_is_that_of_the_encoder_alone() -> None:
    encoder = linear()
    mapper = Turned((0.1, 1.0))
    plain = sc.SmoothedEncoder(encoder, SIGMA, noise="float")
    both = sc.SmoothedEncoder(encoder, SIGMA, denoiser=lambda x, sigma: 0.5 * x, mapper=mapper, noise="float")
    image = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    with torch.no_grad():
        wanted = unit_rows(encoder(torch.from_numpy(image)[None]).numpy())
    for smoothed in (plain, both):
        assert np.allclose(smoothed.draws(image, 1, stage="reference"), wanted, atol=1e-6)
    assert np.abs(plain.draws(image, 1) - both.draws(image, 1)).max() > 0.01


class Turned:
    """A mapper that turns every feature; trained for a range of sigma."""

    def __init__(self, sigmas: tuple[float, float]) -> None:
        self.sigmas = sigmas

    def __call__(self, features: Tensor, sigma: float) -> Tensor:
        return features.flip(-1)


def test_a_mapper_is_refused_at_a_sigma_it_was_not_trained_for() -> None:
    message = r"trained for sigma 0\.1 to 0\.2 in a run with sigma = 0\.5.* mapper=None \(--mapper none\)"
    with pytest.raises(InvalidInput, match=message):
        sc.SmoothedEncoder(linear(), SIGMA, mapper=Turned((0.1, 0.2)))


def test_gradients_see_the_same_features() -> None:
    network = FeatureNetwork(linear(), None, Turned((0.0, 1.0)), SIGMA)
    images = np.random.default_rng(2).random((8, *SHAPE)).astype(np.float32)
    with_gradient = torch.from_numpy(images).requires_grad_(True)
    rows = network.differentiable(with_gradient)
    assert np.allclose(rows.detach().numpy(), network.features(images), atol=1e-6)
    rows[:, 0].sum().backward()
    assert with_gradient.grad is not None
    assert float(with_gradient.grad.abs().sum()) > 0.0


def test_tokens_are_one_feature() -> None:
    def tokens(images: Tensor) -> Tensor:
        return images.flatten(1).reshape(len(images), 4, 4) + 0.1

    smoothed = sc.SmoothedEncoder(tokens, 0.05, noise="float")
    assert smoothed.certify(grey(), n=100).feature.shape == (16,)


def test_units_of_extreme_rows() -> None:
    rows = unit_rows(
        np.array([[3e38, 3e38], [1e-40, 0.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 0.0]], np.float32)
    )
    assert np.allclose(rows[0], np.sqrt(0.5))
    assert np.allclose(rows[1], (1.0, 0.0))
    assert (rows[2:] == 0.0).all()


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda x: x.flatten(1) * 0.0, "zero, NaN or infinite features for 1 of 1 noisy images"),
        (lambda x: x.flatten(1) / 0.0, "zero, NaN or infinite"),
        (lambda x: torch.where(x.flatten(1) < 0.0, torch.nan, x.flatten(1)), "zero, NaN or infinite"),
        (lambda x: x.flatten(1).argmax(dim=1), "floating-point tensor"),
        (lambda x: x, "floating-point tensor"),
        (lambda x: x.flatten(1)[:1], "for 256 images"),
        (lambda x: x.flatten(1).numpy(), "returned ndarray"),
        (lambda x: x.flatten(1) - x.flatten(1).mean(dim=0), "other images of its batch"),
        (lambda x: x.flatten(1) + torch.randn(len(x), 1), "in two ways"),
    ],
)
def test_encoders_that_cannot_be_certified_are_refused(encoder: object, message: str) -> None:
    with pytest.raises(SmoothcertError, match=message):
        sc.SmoothedEncoder(encoder, SIGMA, noise="float").certify(grey(), n=50)  # type: ignore[arg-type]


def test_features_of_changing_dimension_are_refused() -> None:
    calls = iter(range(100))

    def changing(images: Tensor) -> Tensor:
        return images.flatten(1)[:, : 16 - (next(calls) > 8)] + 0.1

    with pytest.raises(SmoothcertError):
        sc.SmoothedEncoder(changing, SIGMA, noise="float").certify(grey(), n=2_000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n = 0"),
        ({"n0": 1}, "n0 >= 2"),
        ({"alpha": 0.0}, "alpha"),
        ({"served": -1}, "served"),
        ({"head": object()}, "no prototypes"),
        ({"head": "head", "decision": "loud"}, "decision"),
        ({"decision": "loud"}, "no such way"),
        ({"decision": "votes"}, "without a head"),
        ({"batch": 0}, "batch = 0"),
        ({"batch": "x"}, "batch = 'x'"),
        ({"seed": "x"}, "seed = 'x'"),
        ({"seed": 1.5}, "seed = 1.5"),
        ({"example": -1}, r"example names \[-1\]"),
        ({"example": 2**64}, "example names"),
        ({"example": 1.5}, "example names"),
        ({"example": "x"}, "example names"),
    ],
)
def test_numbers_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    if settings.get("head") == "head":
        settings = settings | {"head": head()}
    with pytest.raises(InvalidInput, match=message):
        sc.SmoothedEncoder(linear(), SIGMA, noise="float").certify(grey(), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n = 0"),
        ({"n": -1}, "n = -1"),
        ({"n": None}, "n = None"),
        ({"first": -1}, "first = -1"),
        ({"stage": "foo"}, "stage 'foo'"),
        ({"image": np.stack([grey(), grey()])}, "one image"),
        ({"image": [[[0.5]]]}, "type list"),
        ({"image": grey().astype(str)}, "pixels are numbers"),
    ],
)
def test_draws_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    smoothed = sc.SmoothedEncoder(linear(), SIGMA, noise="float")
    with pytest.raises(SmoothcertError, match=message):
        smoothed.draws(**({"image": grey(), "n": 3} | settings))  # type: ignore[arg-type]
    assert smoothed.draws(grey(), 3, seed=np.int64(2), example=np.int64(3)).shape == (3, 6)  # type: ignore[arg-type]


def test_a_class_is_no_model() -> None:
    for build in (
        lambda: sc.SmoothedEncoder(torch.nn.Linear, SIGMA),  # type: ignore[arg-type]
        lambda: sc.SmoothedClassifier(torch.nn.Linear, SIGMA),  # type: ignore[arg-type]
        lambda: sc.SmoothedEncoder(linear(), SIGMA, denoiser=torch.nn.Identity),  # type: ignore[arg-type]
        lambda: sc.SmoothedEncoder(linear(), SIGMA, mapper=Turned),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidInput, match="Pass an instance of it"):
            build()


class AnyHead:
    def __init__(self, prototypes: object, classes: str) -> None:
        self.prototypes, self.classes = prototypes, list(classes)


@pytest.mark.parametrize(
    ("prototypes", "classes", "message"),
    [
        (2.0 * np.eye(6)[:3], "abc", "that of 'a' has 2. Divide each row by its norm"),
        (np.full((3, 6), np.nan), "abc", "NaN"),
        (np.eye(6)[:3], "ab", "one row"),
        (np.eye(6)[:3], "aab", "one name"),
        (np.ones(3), "abc", "one row"),
    ],
)
def test_heads_of_other_makes_are_checked_too(prototypes: object, classes: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        head_spec(AnyHead(prototypes, classes))
    with pytest.raises(InvalidInput, match="norm"):  # the record checks again, and advises on the same thing
        HeadSpec.of("mine", "ab", 2.0 * np.eye(2), {})


def test_long_lists_of_classes_are_shortened_and_the_advice_can_be_followed() -> None:
    many = [str(k) for k in range(10)]
    with pytest.raises(InvalidInput, match=r"7, \.\.\. \(10 classes\).* for every class of the data"):
        head_spec(head(), many)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_sigma_must_be_positive_and_finite(sigma: float) -> None:
    with pytest.raises(InvalidInput, match="sigma"):
        sc.SmoothedEncoder(linear(), sigma)


def head() -> sc.ZeroShotHead:
    return sc.ZeroShotHead(np.eye(6)[:3], ("a", "b", "c"))


def test_a_head_answers_with_the_numbers_of_the_data() -> None:
    rows = head_spec(head(), ("c", "a", "b")).rows()
    assert np.argmax(rows, axis=1).tolist() == [2, 0, 1]
    with pytest.raises(InvalidInput, match="on data of x, y"):
        head_spec(head(), ("x", "y"))


def test_a_head_is_certified_with_the_feature() -> None:
    smoothed = sc.SmoothedEncoder(linear(), 0.1, noise="float")
    image = np.random.default_rng(5).random(SHAPE).astype(np.float32)
    found = smoothed.certify(image, n=1_000, head=head(), decision="dual")
    top = int(np.argmax(smoothed.encode(image)[:3]))
    assert found.decisions[0].rule == "dual"
    assert found.decisions[0].label in (None, top)


def test_a_model_that_fails_is_named() -> None:
    def broken(images: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(ModelOutputError, match="mat1 and mat2"):
        sc.SmoothedEncoder(broken, SIGMA, noise="float").certify(grey(), n=10)

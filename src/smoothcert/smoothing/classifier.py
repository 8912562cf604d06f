"""The smoothed classifier g(x) = argmax_c P(f(x + eta) = c), f being denoise-then-classify."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert import certificates
from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.certificates.course import Need
from smoothcert.protocols import Classifier, Denoiser
from smoothcert.runlog.specification import RuleSpec
from smoothcert.smoothing.network import Network, default_batch
from smoothcert.smoothing.noise import Noise, Prepared, make_noise
from smoothcert.smoothing.smoothed import Image, Smoothed, whole_number
from smoothcert.smoothing.streams import Segment
from smoothcert.tallies import Votes


class SmoothedClassifier(Smoothed[Network]):
    """A classifier with a guarantee, made from one without, without retraining it.

    Args:
        classifier: images ``(B, C, H, W)`` in [0, 1] -> scores ``(B, classes)`` or labels ``(B,)``.
        sigma: standard deviation of the Gaussian noise, on pixels in [0, 1].
        denoiser: ``D(noisy, sigma)`` -> images in [0, 1]; without one the classifier sees the noise.
        noise: ``"grid"`` (exact for integer images, the default) or ``"float"`` (as published code does it).
        levels: L for integer images with levels 0..L; 255 where nothing else is said.
        device: where the networks run; torch modules are moved there and put into evaluation mode.
        precision: ``"float32"``, or ``"bf16-mixed"`` for about twice the speed on hardware with bfloat16; it
            rounds differently, so it is another base classifier with a certificate of its own.

    Raises:
        InvalidInput: sigma not positive and finite, a model that cannot be called, an unknown noise.

    Source: Cohen et al. 2019; with a diffusion denoiser Carlini et al. 2023, Algorithms 1 and 2.
    """

    def __init__(
        self,
        classifier: Classifier,
        sigma: float,
        *,
        denoiser: Denoiser | None = None,
        noise: str = "grid",
        levels: int | None = None,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        make_noise(noise, sigma, 255 if levels is None else levels)  # a bad sigma is refused before all else
        network = Network(classifier, denoiser, float(sigma), device, precision)
        super().__init__(network, noise=noise, levels=levels)

    @property
    def classifier(self) -> Any:
        """The base classifier as given."""
        return self.network.classifier

    def certify(
        self,
        image: Image,
        *,
        stop: str = "fixed",
        n0: int | None = None,
        n: int | None = None,
        alpha: float = 0.001,
        seed: int = 0,
        bound: certificates.gaussian.Bound = "one",
        futility: float | None = None,
        example: int | Sequence[int] | None = None,
        batch: int | None = None,
    ) -> Any:
        """With probability >= 1 - alpha an image's answer is constant within its radius (or it abstains).

        Args:
            image: one image ``(C, H, W)`` or several ``(B, C, H, W)``; uint8 levels, or floats in [0, 1].
            stop: ``"fixed"``, ``"table:0,0.25,0.5"``, ``"radius:0.5"``, ``"curve"`` or ``"anytime"``; see
                ``smoothcert.certify``. All hold at the same alpha.
            n0: selection draws (100 where the rule has them). n: estimation draws (100,000), or the most.
            alpha: error probability of each certificate.
            seed, example: name the noise streams. One image may have a number, several a number each or the
                first of consecutive ones; left out, the names come from the pixels, so that different
                images never share their noise.
            bound: ``"one"`` bounds p_A alone, ``"pair"`` p_A and the strongest rival.
            futility: give up below this chance of success; never affects soundness.
            batch: draws evaluated at once; by default chosen from the image size.

        Returns:
            A ``Certificate`` for one image, a tuple of them for several; ``n`` holds the draws made.

        Raises:
            InvalidInput: a bad image or number. UnsoundModel, ModelOutputError: a model that cannot be used.
        """
        rule = RuleSpec.settle(
            "certify",
            stop=stop,
            alpha=check_alpha(alpha),
            n0=whole_number("n0", n0),
            n=whole_number("n", n),
            bound=bound,
            futility=futility,
        )
        return self._proofs(rule, image, example, seed, batch)

    def predict(
        self,
        image: Image,
        *,
        stop: str = "fixed",
        n: int | None = None,
        alpha: float = 0.001,
        seed: int = 0,
        example: int | Sequence[int] | None = None,
        batch: int | None = None,
    ) -> Any:
        """With probability >= 1 - alpha the label is g's answer for that image, or ``None`` (an abstention).

        ``stop="fixed"`` makes n draws (1,000); ``"predict"`` stops when the answer is known, after at most n
        (12,000). Returns a ``Prediction`` for one image, a tuple of them for several. Other arguments and
        errors as for ``certify``. Source: PREDICT of Cohen et al. 2019.
        """
        rule = RuleSpec.settle("predict", stop=stop, alpha=check_alpha(alpha), n=whole_number("n", n))
        return self._proofs(rule, image, example, seed, batch)

    def _proofs(
        self, rule: RuleSpec, image: Image, example: int | Sequence[int] | None, seed: int, batch: int | None
    ) -> Any:
        """What the rule's draws prove: one result for one image, a tuple for several."""
        named = self._prepared(image, example, seed, batch)
        error = self.noise.error(named[0][1].size)
        design = rule.design(alpha=rule.alpha, sigma=self.sigma, noise_error=error)
        found = []
        for name, prepared in named:
            course = design.begin()
            while (need := course.need) is not None:
                course = course.add(self._votes(prepared, name, need, seed, batch))
            verdict = course.verdict()
            assert verdict is not None, "a finished course has a verdict"
            found.append(verdict.proof)
        return found[0] if image.ndim == 3 else tuple(found)

    def _votes(self, image: Prepared, example: int, need: Need, seed: int, batch: int | None) -> Votes:
        size = batch or default_batch(image.shape, self.network.device)
        votes = Votes()
        for first in range(need.first, need.end, size):
            segment = Segment(example, need.stage, first, min(size, need.end - first))
            votes += Votes.from_labels(self.labels([(image, segment)], seed=seed, batch=size))
        return votes

    def labels(
        self, parts: Sequence[tuple[Prepared, Segment]], *, seed: int, batch: int, noise: Noise | None = None
    ) -> npt.NDArray[np.int64]:
        """The answers of the named draws, in order; one network call at the fixed batch shape.

        ``parts`` pairs prepared images with the draws wanted of each, together at most ``batch`` draws.
        A non-finite answer is -1.
        """
        noisy, draws = self.batch_of(parts, seed=seed, batch=batch, noise=noise or self.noise)
        return self.network.labels(noisy, draws)[: sum(segment.draws for _, segment in parts)]

    answers = labels

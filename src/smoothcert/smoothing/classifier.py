"""The smoothed classifier g(x) = argmax_c P(f(x + eta) = c), f being denoise-then-classify."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from smoothcert import certificates
from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.certificates.course import Need
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Classifier, Denoiser
from smoothcert.runlog.specification import RuleSpec
from smoothcert.smoothing.checks import check_network
from smoothcert.smoothing.network import Network, default_batch, pad
from smoothcert.smoothing.noise import NamedDraws, Noise, Prepared, make_noise
from smoothcert.smoothing.streams import Segment
from smoothcert.tallies import Votes

Image = Tensor | npt.NDArray[Any]


class SmoothedClassifier:
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
        self.levels = levels
        self.noise: Noise = make_noise(noise, sigma, 255 if levels is None else levels)
        self.sigma = float(sigma)
        self.network = Network(classifier, denoiser, self.sigma, device, precision)
        self._checked: set[tuple[Any, ...]] = set()

    @property
    def classifier(self) -> Any:
        """The base classifier as given."""
        return self.network.classifier

    @property
    def denoiser(self) -> Any | None:
        """The denoiser as given."""
        return self.network.denoiser

    def noise_for(self, levels: int | None) -> Noise:
        """This classifier's noise on data with these grey levels (``None`` for float images)."""
        if levels is not None and self.levels is not None and levels != self.levels:
            raise InvalidInput(
                f"levels={self.levels} on data with levels 0..{levels}",
                "noise on the wrong grid would certify another model",
                "Leave levels= out when a data set declares them",
            )
        return make_noise(self.noise.kind, self.sigma, levels if levels is not None else self.levels)

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
            n0=_whole("n0", n0),
            n=_whole("n", n),
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
        rule = RuleSpec.settle("predict", stop=stop, alpha=check_alpha(alpha), n=_whole("n", n))
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

    def _prepared(
        self, image: Image, example: int | Sequence[int] | None, seed: int, batch: int | None
    ) -> list[tuple[int, Prepared]]:
        """Images with their stream names, prepared for the noise; the model is checked on them once."""
        array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
        if array.ndim not in (3, 4) or 0 in array.shape:
            raise InvalidInput(
                f"an image of shape {array.shape}", "images are (C, H, W) or (B, C, H, W)", "Reshape it"
            )
        several = array if array.ndim == 4 else array[None]
        if self.levels is None and np.issubdtype(array.dtype, np.integer) and array.max() == 1:
            raise InvalidInput(
                "an integer image whose brightest pixel is 1",
                "it may be black and white (levels 0 and 1) or an almost black 8-bit image",
                "Say which: SmoothedClassifier(..., levels=1) or levels=255",
            )
        prepared = [self.noise.prepare(one) for one in several]
        first = _name_of(prepared) if example is None else example
        names = range(first, first + len(several)) if isinstance(first, int) else list(first)
        if len(names) != len(several) or len(set(names)) != len(names):
            raise InvalidInput(
                f"{len(several)} images with the example names {list(names)[:5]}",
                "each image needs a noise stream of its own",
                "Pass one distinct example= number an image",
            )
        self.check(prepared, seed=seed, batch=batch)
        return list(zip(names, prepared, strict=True))

    def check(
        self,
        prepared: Sequence[Prepared],
        *,
        seed: int,
        batch: int | None = None,
        noise: Noise | None = None,
        workers: int = 1,
        afresh: bool = False,
    ) -> None:
        """Put the model into evaluation mode and refuse one that is not a function of one draw.

        That costs five network calls, so it is done once for each shape and batch size, or ``afresh``.
        """
        self.network.settle()
        size = batch or default_batch(prepared[0].shape, self.network.device)
        key = (prepared[0].shape, size, workers)
        if afresh or key not in self._checked:
            some = prepared[:size]
            check_network(self.network, noise or self.noise, some, seed=seed, batch=size, workers=workers)
            self._checked.add(key)

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
        noise = noise or self.noise
        noisy = pad([noise.noisy(image, seed, segment) for image, segment in parts], batch)
        segments = [segment for _, segment in parts]
        draws = NamedDraws(seed, segments, noisy.shape[1:], batch) if self.network.stochastic else None
        return self.network.labels(noisy, draws)[: sum(segment.draws for segment in segments)]


def _name_of(images: Sequence[Prepared]) -> int:
    """A stream name made from the pixels: equal images share it, others do not."""
    digest = hashlib.sha256(str(images[0].shape).encode())
    for image in images:
        digest.update(np.ascontiguousarray(image).tobytes())
    return int.from_bytes(digest.digest()[:7], "big")


def _whole(name: str, value: int | None) -> int | None:
    """A number of draws as a plain integer, ``None`` for the usual one."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= 10**9:
        raise InvalidInput(
            f"{name} = {value!r}",
            "a number of draws is a whole number from 1 to 10^9",
            f"Write {name}=1000",
        )
    return int(value)

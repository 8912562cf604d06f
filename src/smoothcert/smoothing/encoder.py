"""The smoothed encoder F(x) = E f(x + eta): features that provably turn little when the image changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.errors import ModelOutputError
from smoothcert.protocols import Denoiser, Encoder, Mapper
from smoothcert.smoothing.features import FeatureNetwork, Rows
from smoothcert.smoothing.network import default_batch, pad
from smoothcert.smoothing.noise import Noise, Prepared, make_noise
from smoothcert.smoothing.smoothed import Image, Smoothed, whole_number
from smoothcert.smoothing.streams import Segment

REFERENCE = "reference"  # the stage of an image's clean feature: no noise, no denoiser, no mapper


class SmoothedEncoder(Smoothed[FeatureNetwork]):
    """An encoder with a guarantee, made from one without: the cosine of its features under attack.

    Args:
        encoder: images ``(B, C, H, W)`` in [0, 1] -> features ``(B, k)``, or ``(B, T, d)`` taken as one row.
        sigma: standard deviation of the Gaussian noise, on pixels in [0, 1].
        denoiser: ``D(noisy, sigma)`` -> images in [0, 1]; the purifier of a booster is one.
        mapper: ``M(features, sigma)``, the other half of a booster; refused at another sigma than its own.
        noise, levels, device, precision: as for ``SmoothedClassifier``.

    Raises:
        InvalidInput: sigma not positive and finite, a part that cannot be called, a mapper for another sigma.

    Source: arXiv 2601.16200; THEORY 3.
    """

    def __init__(
        self,
        encoder: Encoder,
        sigma: float,
        *,
        denoiser: Denoiser | None = None,
        mapper: Mapper | None = None,
        noise: str = "grid",
        levels: int | None = None,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        make_noise(noise, sigma, 255 if levels is None else levels)  # a bad sigma is refused before all else
        network = FeatureNetwork(encoder, denoiser, mapper, float(sigma), device, precision)
        super().__init__(network, noise=noise, levels=levels)

    @property
    def encoder(self) -> Any:
        """The encoder as given."""
        return self.network.encoder

    @property
    def mapper(self) -> Any | None:
        """The mapper as given."""
        return self.network.mapper

    def encode(
        self,
        image: Image,
        *,
        n: int = 1_000,
        seed: int = 0,
        example: int | Sequence[int] | None = None,
        batch: int | None = None,
    ) -> npt.NDArray[np.float64]:
        """The feature to serve: the mean of the unit features of n fresh draws, ``(k,)`` or ``(B, k)``.

        Its norm estimates m, so it is at most 1. Its own certificate is the *served* one: it is a Monte-Carlo
        mean, not F itself. The draws come from a stream that no certificate uses.
        """
        count = whole_number("n", n) or 1
        found = []
        for name, prepared in self._prepared(image, example, seed, batch):
            total = np.zeros(0)
            for rows in self._pieces(prepared, name, "prediction", 0, count, seed, batch):
                total = rows.sum(axis=0) if not total.size else total + rows.sum(axis=0)
            found.append(total / count)
        return found[0] if image.ndim == 3 else np.stack(found)

    def draws(
        self,
        image: Image,
        n: int,
        *,
        stage: str = "check",
        first: int = 0,
        seed: int = 0,
        example: int | Sequence[int] | None = None,
        batch: int | None = None,
    ) -> Rows:
        """The unit features ``(n, k)`` of n draws of one image, of a stage no certificate uses by default."""
        ((name, prepared),) = self._prepared(image, example, seed, batch)
        return np.concatenate(list(self._pieces(prepared, name, stage, first, n, seed, batch)))

    def features(
        self, parts: Sequence[tuple[Prepared, Segment]], *, seed: int, batch: int, noise: Noise | None = None
    ) -> Rows:
        """The unit features of the named draws, in order: ``parts`` together at most ``batch`` draws.

        Draws of the stage ``reference`` are clean images seen by the encoder alone.
        """
        noise = noise or self.noise
        clean = [segment.stage == REFERENCE for _, segment in parts]
        count = sum(segment.draws for _, segment in parts)
        cuts = np.cumsum([0, *(segment.draws for _, segment in parts)])
        found = np.zeros((0, 0))
        if not all(clean):
            noisy, draws = self.batch_of(parts, seed=seed, batch=batch, noise=noise)
            found = self.network.features(noisy, draws)[:count]
        if any(clean):
            pictures = [np.repeat(noise.clean(image)[None], s.draws, axis=0) for image, s in parts]
            seen = self.network.reference(pad(pictures, batch))[:count]
            found = seen.copy() if not found.size else found
            for is_clean, start, stop in zip(clean, cuts, cuts[1:], strict=False):
                if is_clean:
                    found[start:stop] = seen[start:stop]
        return found

    answers = features

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
        """As for every smoothed model; and refuse features that are not finite or have no direction."""
        size = batch or default_batch(prepared[0].shape, self.network.device)
        known = not afresh and (prepared[0].shape, size, workers) in self._checked
        super().check(prepared, seed=seed, batch=batch, noise=noise, workers=workers, afresh=afresh)
        if known:
            return
        names = [Segment(k, "check", 0, 1) for k in range(min(len(prepared), size))]
        parts = list(zip(prepared, names, strict=False))
        clean = [(image, Segment(k, REFERENCE, 0, 1)) for k, (image, _) in enumerate(parts)]
        noisy = self.features(parts, seed=seed, batch=size, noise=noise)
        reference = self.features(clean, seed=seed, batch=size, noise=noise)
        for rows, what in ((noisy, "noisy"), (reference, "clean")):
            broken = int((rows == 0.0).all(axis=1).sum())
            if broken:
                raise ModelOutputError(
                    f"an encoder with zero, NaN or infinite features for {broken} of {len(rows)} {what} ones",
                    "a feature without a direction has no cosine with anything",
                    "Look for a dead or overflowing layer, or take the features of another one",
                )

    def _pieces(
        self, prepared: Prepared, name: int, stage: str, first: int, n: int, seed: int, batch: int | None
    ) -> Any:
        size = batch or default_batch(prepared.shape, self.network.device)
        for start in range(first, first + n, size):
            segment = Segment(name, stage, start, min(size, first + n - start))
            yield self.features([(prepared, segment)], seed=seed, batch=size)

"""The smoothed encoder F(x) = E f(x + eta): features that provably turn little when the image changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.errors import InvalidInput, ModelOutputError, UnknownName
from smoothcert.protocols import Denoiser, Encoder, Mapper
from smoothcert.runlog.specification import Decide, HeadSpec, RuleSpec
from smoothcert.smoothing.features import FeatureNetwork, Rows
from smoothcert.smoothing.network import default_batch, pad
from smoothcert.smoothing.noise import Noise, Prepared, make_noise
from smoothcert.smoothing.sketch import basis
from smoothcert.smoothing.smoothed import Image, Smoothed, count_of, whole_number
from smoothcert.smoothing.streams import STAGES, Segment, is_whole
from smoothcert.tallies import Features, Tally, merged

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
        self.dimension: int | None = None  # numbers of a feature, known once the model has been checked

    @property
    def encoder(self) -> Any:
        """The encoder as given."""
        return self.network.encoder

    @property
    def mapper(self) -> Any | None:
        """The mapper as given."""
        return self.network.mapper

    def certify(
        self,
        image: Image,
        *,
        n0: int = 100,
        n: int = 10_000,
        alpha: float = 0.001,
        seed: int = 0,
        head: Any | None = None,
        decision: Decide = "auto",
        served: int | None = None,
        example: int | Sequence[int] | None = None,
        batch: int | None = None,
    ) -> Any:
        """With probability >= 1 - alpha the feature F(x) keeps at least the stated cosines under attack.

        Args:
            image: one image ``(C, H, W)`` or several ``(B, C, H, W)``; uint8 levels, or floats in [0, 1].
            n0: pilot draws, which choose what is measured. n: estimation draws, which bear every bound.
            alpha: error probability of each claim (the cosines; the head's answer).
            seed, example: name the noise streams, as for ``SmoothedClassifier.certify``.
            head: a ``ZeroShotHead`` (anything with ``prototypes`` and ``classes``) whose answer is certified.
            decision: ``"votes"``, ``"margin"``, ``"dual"``, or ``"auto"``, chosen on pilot draws.
            served: draws of the feature that is used, for the certificate of that feature (``encode``).
            batch: draws evaluated at once; by default chosen from the image size.

        Returns:
            A ``FeatureCertificate`` for one image, a tuple of them for several: ``cosine_lower(radius)``,
            ``radius(cosine)``, ``m_lower``, ``decisions`` and the feature estimate.

        Raises:
            InvalidInput: a bad image, number or head. UnsoundModel, ModelOutputError: an encoder that cannot
                be used.
        """
        rule = RuleSpec.settle(
            "encode",
            n0=whole_number("n0", n0),
            n=whole_number("n", n),
            alpha=check_alpha(alpha),
            decision=decision_for(head, decision),
            served=whole_number("served", served),
        )
        spec = head_spec(head) if head is not None else None
        found = []
        for name, prepared in self._prepared(image, example, seed, batch):
            error = self.noise.error(prepared.size)
            course: Any = rule.design(
                alpha=rule.alpha, sigma=self.sigma, noise_error=error, head=spec
            ).begin()
            while (need := course.need) is not None:
                pieces = self._pieces(prepared, name, need.stage, need.first, need.end, seed, batch)
                course = course.add(
                    merged(tally_of(course.plan, segment, rows, seed) for segment, rows in pieces)
                )
            verdict = course.verdict()
            assert verdict is not None, "a finished course has a verdict"
            found.append(verdict.proof)
        return found[0] if image.ndim == 3 else tuple(found)

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
        mean, not F itself. The draws come from a stream that no certificate uses; they must be fresh, so
        whoever serves to strangers gives every request a ``seed`` that nobody can guess: one who knows it can
        look for an image at which those very draws are unlucky.
        """
        count = count_of("n", n)
        found = []
        for name, prepared in self._prepared(image, example, seed, batch):
            total = np.zeros(0)
            for _, rows in self._pieces(prepared, name, "prediction", 0, count, seed, batch):
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
        """The unit features ``(n, k)`` of n draws of one image, of a stage no certificate uses by default.

        Raises:
            InvalidInput: several images, or numbers that name no draws. UnknownName: an unknown stage.
        """
        end = count_of("n", n)
        if not isinstance(stage, str) or stage not in STAGES:
            raise UnknownName.among("stage", str(stage), STAGES)
        if not is_whole(first) or not 0 <= first <= 10**9:
            raise InvalidInput(f"first = {first!r}", "draws are numbered from 0 to 10^9", "Write first=0")
        if np.ndim(image) == 4:
            raise InvalidInput(
                f"images of shape {tuple(np.shape(image))}",
                "draws are of one image (C, H, W)",
                "Pass each by itself",
            )
        ((name, prepared),) = self._prepared(image, example, seed, batch)
        pieces = self._pieces(prepared, name, stage, first, first + end, seed, batch)
        return np.concatenate([rows for _, rows in pieces])

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
                    found[start:stop] = self._of_one_length(seen, found)[start:stop]
        return self._of_one_length(found)

    def _of_one_length(self, rows: Rows, others: Rows | None = None) -> Rows:
        wanted = self.dimension if others is None else others.shape[1]
        if wanted is not None and rows.shape[1] != wanted:
            raise ModelOutputError(
                f"an encoder that returned {rows.shape[1]} numbers an image after {wanted}",
                "features of different lengths have no mean",
                "Make it return features of one length (fix the image size, the number of tokens)",
            )
        return rows

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
        self.dimension = None
        noisy = self.features(parts, seed=seed, batch=size, noise=noise)
        reference = self.features(clean, seed=seed, batch=size, noise=noise)
        self.dimension = self._of_one_length(noisy, reference).shape[1]
        for rows, what in ((noisy, "noisy"), (reference, "clean")):
            broken = int((rows == 0.0).all(axis=1).sum())
            if broken:
                images = f"{broken} of {len(rows)} {what} images"
                raise ModelOutputError(
                    f"an encoder with zero, NaN or infinite features for {images}",
                    "a feature without a direction has no cosine with anything",
                    "Look for a dead or overflowing layer, or take the features of another one",
                )

    def _pieces(
        self, prepared: Prepared, name: int, stage: str, first: int, end: int, seed: int, batch: int | None
    ) -> Iterator[tuple[Segment, Rows]]:
        """The draws ``first .. end - 1`` in pieces of a batch, with their features."""
        size = batch or default_batch(prepared.shape, self.network.device)
        for start in range(first, end, size):
            segment = Segment(name, stage, start, min(size, end - start))
            yield segment, self.features([(prepared, segment)], seed=seed, batch=size)


def tally_of(plan: Any | None, segment: Segment, features: Rows, seed: int) -> Tally:
    """What the features of some draws are in the tallies: kept in a pilot, summed up by the plan after it."""
    if plan is None:
        return Features.of(segment.first, features)
    sketch = basis(seed, segment.example, plan.layout.dimension, plan.layout.sketch)
    found: Tally = plan.scores(features, sketch, first=segment.first)
    return found


def decision_for(head: Any | None, decision: Decide) -> Decide | None:
    """How a head's answer is certified, ``None`` without a head.

    Raises:
        InvalidInput: no such way, or one that was chosen without a head.
    """
    if decision not in get_args(Decide):
        raise InvalidInput(
            f"decision={decision!r}",
            "there is no such way to certify a head's answer",
            "Write 'auto', 'votes', 'margin' or 'dual'",
        )
    if head is None and decision != "auto":
        raise InvalidInput(
            f"decision={decision!r} without a head",
            "there is no answer to certify",
            "Pass head=, or leave decision out",
        )
    return decision if head is not None else None


def head_spec(head: Any, classes: Sequence[str] | None = None) -> HeadSpec:
    """A head as a specification says it, its rows in the order of ``classes`` where given.

    Raises:
        InvalidInput: no head, or one for other classes.
    """
    try:
        rows, own = np.asarray(head.prototypes, dtype=np.float64), [str(name) for name in head.classes]
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"a head of type {type(head).__name__}",
            "it has no prototypes and classes",
            "Make one with ZeroShotHead.from_examples or ZeroShotHead.from_prompts",
        ) from error
    _check_rows(rows, own)
    wanted = [str(name) for name in classes] if classes is not None else own
    if sorted(wanted) != sorted(own):
        raise InvalidInput(
            f"a head for {_listed(own)} on data of {_listed(wanted)}",
            "its answers cannot be compared with the labels",
            "Make one with a prototype for every class of the data, under its name there, and for no other",
        )
    facts = dict(getattr(head, "facts", {}))
    source = str(getattr(head, "source", facts.get("kind", type(head).__name__)))
    return HeadSpec.of(source, wanted, rows[[own.index(name) for name in wanted]], facts)


def _check_rows(rows: npt.NDArray[np.float64], classes: Sequence[str]) -> None:
    found = f"a head with prototypes {rows.shape} for {len(classes)} classes"
    if rows.ndim != 2 or len(rows) != len(classes) or len(rows) < 2 or not rows.size:
        why = "it has two classes or more, and one row of k numbers for each"
        raise InvalidInput(found, why, "Give prototypes (C, k) and C names")
    if len(set(classes)) != len(classes):
        raise InvalidInput(
            f"a head for {_listed(classes)}", "two classes have one name", "Name them differently"
        )
    lengths = np.linalg.norm(rows, axis=1)
    if not np.isfinite(lengths).all():
        raise InvalidInput(
            found, "some of its numbers are NaN or infinite", "Make it again from good features"
        )
    wrong = np.flatnonzero(np.abs(lengths - 1.0) >= 1e-6)
    if wrong.size:
        name, length = classes[wrong[0]], lengths[wrong[0]]
        why = f"prototypes are of length 1, and that of {name!r} has {length:.6g}"
        raise InvalidInput(found, why, "Divide each row by its norm")


def _listed(classes: Sequence[str]) -> str:
    """The first few names, and how many there are where that is not all."""
    few = ", ".join(classes[:8])
    return few if len(classes) <= 8 else f"{few}, ... ({len(classes)} classes)"

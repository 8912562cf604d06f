"""What a run, or a log of somebody else's run, says about each image: the input of every analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothcert.certificates.feature import FeatureCertificate


@dataclass(frozen=True, slots=True)
class Outcome:
    """The certificate of one image, derived on reading.

    Attributes:
        index: the image's index in its data set.
        label: its true class, ``None`` where an imported log does not say.
        predicted: the smoothed classifier's answer, ``None`` for an abstention.
        radius: certified L2 radius on pixels in [0, 1], rounded down; 0 for an abstention; ``None`` where
            the source holds predictions only.
        seconds: what the image cost, where known.
        judged: the source's own verdict on the answer; asked only where ``label`` is ``None``.
        hits: how many of the deciding draws answered the true class, where the votes are known.
        draws: how many draws the image took, where known.
        reason: why they ended there (``certificates.course.REASONS``), where known.
        feature: what is proved of the image's feature, in a run that certifies features.
    """

    index: int
    label: int | None
    predicted: int | None
    radius: float | None
    seconds: float | None = None
    judged: bool | None = None
    hits: int | None = None
    draws: int | None = None
    reason: str | None = None
    feature: FeatureCertificate | None = None

    @property
    def correct(self) -> bool:
        """Whether the answer is the true class (an abstention is not)."""
        right = self.judged is True if self.label is None else self.predicted == self.label
        return self.predicted is not None and right

    def certified_at(self, radius: float) -> bool:
        """Whether the answer is correct and proved constant within ``radius``."""
        return self.correct and self.radius is not None and self.radius >= radius


@dataclass(frozen=True)
class Results:
    """All outcomes of one run with what is needed to read them.

    Attributes:
        name: the run directory or log file, for captions.
        outcomes: one per image, in index order.
        sigma, alpha, n0, n: of the specification; ``None`` where an imported log does not say.
        alpha_post_hoc: true when ``alpha`` is not the one fixed before the first draw.
        planned: how many images the run is to certify (``len(outcomes)`` when complete); of a shard its own.
        description: data set and model in a few words.
        truncated: true when the source breaks off in mid-line, so that images are missing.
        stop: the stopping rule; ``None`` where an imported log does not say.
        radii: the radii the rule decided one by one; a radius between them counts as the next larger one.
        out_of_reach: those of them that not even unanimous votes would prove.
        task: ``certify``, ``predict`` or ``encode``.
        decision: how the answer of a head was certified; ``None`` where there is no head.
        label_aware: true when images were dropped as soon as their answer was seen to be wrong.
        shard: ``"3/16"`` where the run file holds a part of the run's images; ``None`` where it holds all.
    """

    name: str
    outcomes: tuple[Outcome, ...]
    sigma: float | None = None
    alpha: float | None = None
    n0: int | None = None
    n: int | None = None
    alpha_post_hoc: bool = False
    planned: int | None = None
    description: str = ""
    truncated: bool = False
    stop: str | None = None
    radii: tuple[float, ...] = ()
    out_of_reach: tuple[float, ...] = ()
    label_aware: bool = False
    task: str = "certify"
    decision: str | None = None
    shard: str | None = None

    @property
    def certifies_features(self) -> bool:
        """Whether the run says something of features."""
        return self.task == "encode"

    @property
    def complete(self) -> bool:
        """Whether every planned image is finished; of a shard, every image of its own."""
        return not self.truncated and self.planned in (None, len(self.outcomes))

"""What a run, or a log of somebody else's run, says about each image: the input of every analysis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """The certificate of one image, derived on reading.

    Attributes:
        index: the image's index in its data set.
        label: its true class.
        predicted: the smoothed classifier's answer, ``None`` for an abstention.
        radius: certified L2 radius on pixels in [0, 1], rounded down; 0 for an abstention; ``None`` where
            the source holds predictions only.
        seconds: what the image cost, where known.
    """

    index: int
    label: int
    predicted: int | None
    radius: float | None
    seconds: float | None = None

    @property
    def correct(self) -> bool:
        """Whether the answer is the true class (an abstention is not)."""
        return self.predicted is not None and self.predicted == self.label

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
        planned: how many images the specification names (``len(outcomes)`` when complete).
        description: data set and model in a few words.
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

    @property
    def complete(self) -> bool:
        """Whether every planned image is finished."""
        return self.planned is None or self.planned == len(self.outcomes)

"""What a run will cost, in words for a person."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """What a run will cost, from a short warm-up on real inputs; the most it can, under a stopping rule."""

    draws: int
    draws_per_second: float
    batch: int
    workers: int
    device: str
    at_most: bool = False

    @property
    def seconds(self) -> float:
        """Expected duration."""
        return self.draws / self.draws_per_second

    def __str__(self) -> str:
        bound = "at most " if self.at_most else ""
        said = f"{bound or 'about '}{duration(self.seconds)}"
        return (
            f"{bound}{self.draws:,} draws at about {self.draws_per_second:,.0f}/s on {self.device} "
            f"({self.workers} workers, batches of {self.batch}): {said}"
            f"{'; most images need far fewer' if self.at_most else ''}"
        )


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``42 s``, ``3 min 20 s``, ``5 h 10 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"

"""What a person sees of a run: images done, draws a second, time left, certified accuracy so far."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from smoothcert.runlog.reading import Progress as Draws
from smoothcert.runlog.reading import outcome
from smoothcert.runlog.results import Outcome
from smoothcert.runlog.specification import Specification
from smoothcert.runlog.store import TallyRow
from smoothcert.tallies import Votes


class Running:
    """The certificates of the images finished so far, kept up to date batch by batch."""

    def __init__(
        self, specification: Specification, labels: Mapping[int, int], done: Mapping[int, Draws]
    ) -> None:
        self._specification, self._labels = specification, labels
        self._votes: dict[int, dict[str, Votes]] = {}
        self._drawn: dict[int, int] = {}
        self.outcomes: list[Outcome] = []
        self.draws = 0
        for example, image in done.items():
            for stage, votes in image.votes.items():
                self._add(example, stage, votes)

    def update(self, rows: list[TallyRow]) -> None:
        """Count the rows of one batch."""
        for row in rows:
            self._add(row.example, row.stage, row.votes)

    def _add(self, example: int, stage: str, votes: Votes) -> None:
        image = self._votes.setdefault(example, {})
        image[stage] = image.get(stage, Votes()) + votes
        self.draws += votes.total
        self._drawn[example] = self._drawn.get(example, 0) + votes.total
        if self._drawn[example] == sum(draws for _, draws in self._specification.rule.stages):
            finished = Draws(self._votes.pop(example), {})
            alpha = self._specification.rule.alpha
            self.outcomes.append(
                outcome(self._specification, example, self._labels[example], finished, alpha)
            )

    def accuracy(self, radius: float) -> float:
        """Share of the finished images that are correct and certified at ``radius`` (if they have one)."""
        hits = sum(o.correct if o.radius is None else o.certified_at(radius) for o in self.outcomes)
        return hits / len(self.outcomes) if self.outcomes else 0.0


class Display(Protocol):
    """Where progress is shown."""

    def __enter__(self) -> Display: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def update(self, running: Running) -> None: ...


class Silent:
    """Shows nothing: for scripts, pipes and ``--quiet``."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, running: Running) -> None: ...


class Bar:
    """A rich progress bar on a terminal."""

    def __init__(self, title: str, images: int, draws: int, done: int, sigma: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._images, self._radius, self._shown = images, sigma, ""
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[images]} images"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[accuracy]}"),
            console=Console(stderr=True),
            refresh_per_second=5,
        )
        self._task = self._progress.add_task(
            title, total=draws, completed=done, images=f"0/{images}", speed="", accuracy=""
        )

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, running: Running) -> None:
        """Move the bar to the draws counted so far."""
        speed = self._progress.tasks[0].speed
        at = (0.0, self._radius)
        accuracy = "certified " + ", ".join(f"{running.accuracy(r):.0%} at r={r:g}" for r in at)
        self._progress.update(
            self._task,
            completed=running.draws,
            images=f"{len(running.outcomes)}/{self._images}",
            speed=f"{speed:,.0f} draws/s" if speed else "",
            accuracy=accuracy if running.outcomes else "",
        )


def display(title: str, images: int, draws: int, done: int, sigma: float, *, quiet: bool) -> Display:
    """A bar on a terminal, nothing elsewhere or when ``quiet``."""
    import sys

    if quiet or not sys.stderr.isatty():
        return Silent()
    return Bar(title, images, draws, done, sigma)

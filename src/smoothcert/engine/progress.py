"""What a person sees of a run: images done, draws a second, time left, certified accuracy so far."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol

from smoothcert.engine.track import Tracker


class Display(Protocol):
    """Where progress is shown."""

    def __enter__(self) -> Display: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def update(self, running: Tracker, note: str = "") -> None: ...


class Silent:
    """Shows nothing: for scripts, pipes and ``--quiet``."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, running: Tracker, note: str = "") -> None: ...


class Bar:
    """A rich progress bar on a terminal: draws where their number is fixed, else images."""

    def __init__(self, title: str, images: int, draws: int | None, running: Tracker, sigma: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._images, self._radius, self._draws = images, sigma, draws
        self._started, self._before = time.monotonic(), running.draws
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[images]} images"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[accuracy]}"),
            TextColumn("[dim]{task.fields[note]}"),
            console=Console(stderr=True),
            refresh_per_second=5,
        )
        self._task = self._progress.add_task(
            title,
            total=draws or images,
            completed=self._completed(running),
            images=f"0/{images}",
            speed="",
            accuracy="",
            note="",
        )

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, running: Tracker, note: str = "") -> None:
        """Move the bar to what is counted so far; ``note`` is about the workers."""
        speed = (running.draws - self._before) / max(1e-9, time.monotonic() - self._started)
        at = (0.0, self._radius)
        accuracy = "certified " + ", ".join(f"{running.accuracy(r):.0%} at r={r:g}" for r in at)
        self._progress.update(
            self._task,
            completed=self._completed(running),
            images=f"{running.done}/{self._images}",
            speed=f"{speed:,.0f} draws/s" if speed else "",
            accuracy=accuracy if running.any_finished else "",
            note=note,
        )

    def _completed(self, running: Tracker) -> int:
        return running.draws if self._draws else running.done


def counting(title: str, count: int, *, quiet: bool) -> Iterable[int]:
    """0 .. count - 1, with a bar on a terminal while somebody goes through them."""
    if quiet or not sys.stderr.isatty():
        return range(count)
    from rich.console import Console
    from rich.progress import track

    return track(range(count), f"[bold]{title}", console=Console(stderr=True), transient=True)


def display(
    title: str, images: int, draws: int | None, running: Tracker, sigma: float, *, quiet: bool
) -> Display:
    """A bar on a terminal, nothing elsewhere or when ``quiet``; ``draws`` where their number is fixed."""
    if quiet or not sys.stderr.isatty():
        return Silent()
    return Bar(title, images, draws, running, sigma)

"""How good the base classifier is on one noisy draw: the figure of the DDS paper's tables 4 and 5."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smoothcert.analysis.text import TextTable
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Results


@dataclass(frozen=True)
class DrawAccuracy:
    """Share of single draws that the base classifier answered correctly, over all images of a run.

    Attributes:
        run: where the votes are from.
        images, draws: how many images, and how many draws of each.
        hits: draws that answered the true class.
        standard_error: of the share, from the spread between images (draws of one image are not independent
            evidence about others).
    """

    run: Results
    images: int
    draws: int
    hits: int
    standard_error: float

    @property
    def share(self) -> float:
        """Correct draws out of all."""
        return self.hits / (self.images * self.draws)


def draw_accuracy(results: Results) -> DrawAccuracy:
    """Average accuracy of one noisy, denoised draw.

    Raises:
        InvalidInput: an imported log, which has no votes, or no finished image.
    """
    if results.stop not in (None, "fixed"):
        raise InvalidInput(
            f"{results.name}, made with stop = {results.stop!r}",
            "votes that decided when to stop are biased: the share of one draw cannot be read from them",
            "Pass a run with --stop fixed",
        )
    hits = [o.hits for o in results.outcomes if o.hits is not None]
    if len(hits) != len(results.outcomes) or not hits or not results.n:
        raise InvalidInput(results.name, "holds no votes", "Pass a run directory with a finished image")
    shares = [count / results.n for count in hits]
    mean = sum(shares) / len(shares)
    spread = sum((share - mean) ** 2 for share in shares) / max(1, len(shares) - 1)
    return DrawAccuracy(results, len(hits), results.n, sum(hits), (spread / len(shares)) ** 0.5)


def draw_table(results: Iterable[Results]) -> TextTable:
    """One row a model, one column a sigma, in the layout of the DDS paper's tables 4 and 5."""
    found = [draw_accuracy(run) for run in results]
    sigmas = sorted({one.run.sigma or 0.0 for one in found})
    names = list(dict.fromkeys(_name(one.run) for one in found))
    cells = {(_name(one.run), one.run.sigma or 0.0): one for one in found}
    rows = tuple((name, *(_cell(cells.get((name, sigma))) for sigma in sigmas)) for name in names)
    sizes = sorted({f"{one.images} images, {one.draws:,} draws each" for one in found})
    caption = (
        "Accuracy (%) of the base classifier on one noisy draw, averaged over draws and images, with its "
        f"standard error over images; {'; '.join(sizes)}."
    )
    return TextTable(("model", *(f"sigma = {sigma:g}" for sigma in sigmas)), rows, caption)


def _name(run: Results) -> str:
    """Data and model; of a shard, that it is one."""
    return f"{run.description}, shard {run.shard}" if run.shard else run.description


def _cell(one: DrawAccuracy | None) -> str:
    return "-" if one is None else f"{100 * one.share:.1f} +- {100 * one.standard_error:.1f}"

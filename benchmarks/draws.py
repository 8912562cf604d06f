"""Draws an image and certified accuracy of every stopping rule, simulated on published certification logs.

Run: python benchmarks/draws.py LOGS [--quick] [--vary] [--json FILE]
where LOGS holds ``consistency/*.tsv`` (three logs of all 10,000 CIFAR-10 test images) and, if at hand, Cohen's
``cohen/certify``. All rules read the same sequence of votes of every image. What the logs do not say is
assumed in ``benchmarks/published.py``; ``--vary`` varies it. Differences are to n = 100,000 with the class
known beforehand: a reference that, unlike CERTIFY, never selects a wrong class.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from published import Images, N, Paths, images_of_log, votes
from replay import draws_read, replay
from replay_grouped import Floats, Outcomes, bounds
from scipy.special import ndtri

from smoothcert.certificates.course import Design
from smoothcert.runlog.specification import RuleSpec

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
ALPHA = 0.001
PILOT = (100, 1_000)


@dataclass(frozen=True)
class Row:
    """One rule on one log.

    Attributes:
        radii, accuracy: certified accuracy at each radius. difference: to the reference, in points.
        mean, median, q90, most: draws an image. factor: draws of the reference over the mean.
    """

    log: str
    rule: str
    images: int
    radii: tuple[float, ...]
    accuracy: tuple[float, ...]
    difference: tuple[float, ...]
    mean: float
    median: float
    q90: float
    most: int
    factor: float

    @property
    def worst(self) -> float:
        return min(self.difference)


def rules(sigma: float) -> Iterator[tuple[str, RuleSpec, tuple[float, ...]]]:
    """Every rule with the radii it is asked about."""
    settle, grid = RuleSpec.settle, "table:" + ",".join(f"{radius:g}" for radius in GRID)
    yield "fixed, n = 100,000", settle("certify", n0=100, n=N), GRID
    yield "fixed, n = 10,000", settle("certify", n0=100, n=10_000), GRID
    yield "table", settle("certify", stop=grid), GRID
    yield "table, label-aware", settle("certify", stop=grid, label_aware=True), GRID
    for z in (1.0, 2.0, 3.0):
        radius = z * sigma
        yield f"radius:{radius:g}", settle("certify", stop=f"radius:{radius:g}"), (radius,)
    yield "curve:0.02", settle("certify", stop="curve"), GRID
    yield "anytime, read at 10,000", settle("certify", stop="anytime", n=10_000), GRID
    yield "anytime, read at 100,000", settle("certify", stop="anytime", n=N), GRID
    yield "fixed, n = 100,000, pair", settle("certify", n0=100, n=N, bound="pair"), GRID
    yield "table, pair", settle("certify", stop=grid, bound="pair"), GRID
    yield "radius:0.25, pair", settle("certify", stop="radius:0.25", bound="pair"), (0.25,)
    yield "curve:0.02, pair", settle("certify", stop="curve", bound="pair"), GRID


def predictions() -> Iterator[tuple[str, RuleSpec]]:
    yield "predict, fixed n = 10,000", RuleSpec.settle("predict", n=10_000)
    yield "predict, fixed n = 1,000", RuleSpec.settle("predict", n=1_000)
    yield "predict", RuleSpec.settle("predict", stop="predict")


def simulate(
    images: Images, rng: np.random.Generator, wanted: Sequence[tuple[str, RuleSpec, tuple[float, ...]]]
) -> list[Row]:
    """All rules on the same votes of the same images."""
    pilot = votes(images, PILOT, rng)
    designs = [rule.design(alpha=ALPHA, sigma=images.sigma, noise_error=0.0) for _, rule, _ in wanted]
    needed = {N, 10_000}.union(*(draws_read(design, pilot) for design in designs))
    paths = votes(images, tuple(sorted(needed)), rng)
    found = []
    for (name, rule, radii), design in zip(wanted, designs, strict=True):
        outcomes = replay(design, images.label, pilot, paths, radii)
        against = reference(images, paths, rule.task)
        found.append(_row(images, name, outcomes, against, radii, design))
    return found


def reference(images: Images, paths: Paths, task: str) -> Outcomes:
    """CERTIFY with n = 100,000 (PREDICT with n = 10,000) where the class is known beforehand."""
    if task == "predict":
        return replay(
            RuleSpec.settle("predict", n=10_000).design(alpha=ALPHA, sigma=1.0, noise_error=0.0),
            images.label,
            paths,
            paths,
        )
    top = paths.at(N)[0]
    radius = images.sigma * ndtri(bounds(top, top, N, ALPHA)[0])
    named = np.where(radius > 0.0, 0, -1)
    return Outcomes(np.full(len(images), N), named, np.where(radius > 0.0, radius, -np.inf))


def _row(
    images: Images, name: str, outcomes: Outcomes, against: Outcomes, radii: tuple[float, ...], design: Design
) -> Row:
    provable = tuple(r for r in radii if r / images.sigma < ndtri(ALPHA ** (1.0 / N)))
    accuracy = outcomes.accuracy(images.label, provable)
    before = against.accuracy(images.label, provable)
    draws = outcomes.draws
    return Row(
        images.name,
        name,
        len(images),
        provable,
        _percent(accuracy),
        _percent(accuracy - before),
        float(draws.mean()),
        float(np.median(draws)),
        float(np.quantile(draws, 0.9)),
        int(draws.max()),
        float(against.draws.mean() / draws.mean()),
    )


def _percent(shares: Floats) -> tuple[float, ...]:
    return tuple(round(100.0 * float(share), 3) for share in shares)


def of_log(
    path: Path,
    *,
    most: int | None = None,
    abstained: str = "continued",
    rival: str = "measured",
    seed: int = 0,
) -> list[Row]:
    """Every rule on the images of one log."""
    rng = np.random.default_rng(seed)
    images = images_of_log(path, rng, most=most, abstained=abstained, rival=rival)
    proved = simulate(images, rng, list(rules(images.sigma)))
    answers = simulate(images, rng, [(name, rule, (0.0,)) for name, rule in predictions()])
    return proved + answers


def table(rows: Sequence[Row]) -> str:
    """Markdown, one line a rule."""
    lines = [
        "| rule | draws: mean | median | q90 | max | fewer | certified at each radius, % | worst difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        draws = " | ".join(f"{value:,.0f}" for value in (row.mean, row.median, row.q90, row.most))
        accuracy = " / ".join(f"{value:.2f}" for value in row.accuracy)
        lines.append(f"| {row.rule} | {draws} | {row.factor:.1f}x | {accuracy} | {row.worst:+.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", type=Path)
    parser.add_argument("--quick", action="store_true", help="1,000 images of each consistency log")
    parser.add_argument("--vary", action="store_true", help="other assumptions about abstentions and rivals")
    parser.add_argument("--json", type=Path, help="write all figures there")
    chosen = parser.parse_args()
    found: list[dict[str, Any]] = []
    for path in _logs(chosen.logs, cohen=not chosen.quick):
        for assumed in _VARIED if chosen.vary and path.suffix else _VARIED[:1]:
            rows = of_log(path, most=1_000 if chosen.quick else None, **assumed)
            print(f"\n{rows[0].log}, {rows[0].images:,} images, {assumed}\n\n{table(rows)}", flush=True)
            found += [asdict(row) | assumed | {"worst": row.worst} for row in rows]
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


_VARIED = (
    {"abstained": "continued", "rival": "measured"},
    {"abstained": "easy", "rival": "measured"},
    {"abstained": "hardest", "rival": "measured"},
    {"abstained": "continued", "rival": "all"},
)


def _logs(folder: Path, *, cohen: bool) -> list[Path]:
    theirs = sorted(folder.glob("consistency/*.tsv"), key=lambda path: path.name[-8:])
    older = sorted(path for path in folder.glob("cohen/certify/**/test/sigma_*") if path.is_file())
    return theirs + (older if cohen else [])


if __name__ == "__main__":
    main()

"""Draws an image and certified accuracy of every stopping rule, simulated on published certification logs.

Run: python benchmarks/draws.py LOGS [--quick] [--vary] [--json FILE]
where LOGS holds ``consistency/*.tsv`` (three logs of all 10,000 CIFAR-10 test images) and, if at hand, Cohen's
``cohen/certify``. All rules read the same sequence of votes of every image; figures are means over five such
sequences. What the logs do not say is assumed in ``published.py``, and ``--vary`` varies it. Differences are to
the same number of draws for every image with the class known beforehand: a reference that, unlike CERTIFY,
never selects a wrong class.
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
from replay_grouped import Outcomes, bounds
from scipy.special import ndtri

from smoothcert.runlog.specification import RuleSpec

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
ALPHA = 0.001
PILOT = (100, 1_000)
SEEDS = 5
ASSUMED = (
    {"abstained": "continued", "rival": "measured"},
    {"abstained": "easy", "rival": "measured"},
    {"abstained": "hardest", "rival": "measured"},
    {"abstained": "continued", "rival": "all"},
)


@dataclass(frozen=True)
class Rule:
    """A rule, the radii it is asked about, and the fixed number of draws it stands in for."""

    name: str
    spec: RuleSpec
    radii: tuple[float, ...]
    instead_of: int = N


@dataclass(frozen=True)
class Row:
    """One rule on one log, for one or several sequences of votes.

    Attributes:
        radii, accuracy: certified accuracy at each radius that the reference could prove, in %.
        difference: of it to the reference, in points. worst: the smallest, in any sequence.
        mean, median, q90, most: draws an image. factor: draws of the reference over the mean.
    """

    log: str
    rule: str
    images: int
    radii: tuple[float, ...]
    accuracy: tuple[float, ...]
    difference: tuple[float, ...]
    worst: float
    mean: float
    median: float
    q90: float
    most: float
    factor: float


def rules(sigma: float) -> Iterator[Rule]:
    """Every rule that certifies."""
    settle, grid = RuleSpec.settle, "table:" + ",".join(f"{radius:g}" for radius in GRID)
    yield Rule("fixed, n = 100,000", settle("certify", n0=100, n=N), GRID)
    yield Rule("fixed, n = 10,000", settle("certify", n0=100, n=10_000), GRID)
    yield Rule("table", settle("certify", stop=grid), GRID)
    yield Rule("table, label-aware", settle("certify", stop=grid, label_aware=True), GRID)
    yield Rule("table, n = 12,000", settle("certify", stop=grid, n=12_000), GRID, 10_000)
    for z in (1.0, 2.0, 3.0):
        radius = z * sigma
        yield Rule(f"radius at {z:g} sigma", settle("certify", stop=f"radius:{radius:g}"), (radius,))
    yield Rule("curve:0.02", settle("certify", stop="curve"), GRID)
    yield Rule("anytime, read at 10,000", settle("certify", stop="anytime", n=10_000), GRID)
    yield Rule("anytime, read at 100,000", settle("certify", stop="anytime", n=N), GRID)
    yield Rule("fixed, n = 100,000, pair", settle("certify", n0=100, n=N, bound="pair"), GRID)
    yield Rule("table, pair", settle("certify", stop=grid, bound="pair"), GRID)
    yield Rule("table:0,0.25,0.5, pair", settle("certify", stop="table:0,0.25,0.5", bound="pair"), GRID[:3])
    for z in (1.0, 2.0, 3.0):
        one = settle("certify", stop=f"radius:{z * sigma:g}", bound="pair")
        yield Rule(f"radius at {z:g} sigma, pair", one, (z * sigma,))
    yield Rule("curve:0.02, pair", settle("certify", stop="curve", bound="pair"), GRID)


def predictions() -> Iterator[Rule]:
    """Every rule that predicts; right answers are counted as certified at radius 0."""
    yield Rule("predict, fixed n = 1,000", RuleSpec.settle("predict", n=1_000), (0.0,), 10_000)
    yield Rule("predict", RuleSpec.settle("predict", stop="predict"), (0.0,), 10_000)


def simulate(images: Images, rng: np.random.Generator, wanted: Sequence[Rule]) -> list[Row]:
    """All rules on the same votes of the same images."""
    pilot = votes(images, PILOT, rng)
    designs = [rule.spec.design(alpha=ALPHA, sigma=images.sigma, noise_error=0.0) for rule in wanted]
    needed = {N, 10_000}.union(*(draws_read(design, pilot) for design in designs))
    paths = votes(images, tuple(sorted(needed)), rng)
    return [
        _row(
            images,
            rule,
            replay(design, images.label, pilot, paths, rule.radii),
            reference(images, paths, rule.spec.task, rule.instead_of),
        )
        for rule, design in zip(wanted, designs, strict=True)
    ]


def reference(images: Images, paths: Paths, task: str, n: int) -> Outcomes:
    """PREDICT with n draws, or CERTIFY with n draws where the class is known beforehand."""
    if task == "predict":
        fixed = RuleSpec.settle("predict", n=n).design(alpha=ALPHA, sigma=1.0, noise_error=0.0)
        return replay(fixed, images.label, paths, paths)
    top = paths.at(n)[0]
    radius = images.sigma * ndtri(bounds(top, top, n, ALPHA)[0])
    proved = np.where(radius > 0.0, radius, -np.inf)
    return Outcomes(np.full(len(images), n), np.where(radius > 0.0, 0, -1), proved)


def _row(images: Images, rule: Rule, outcomes: Outcomes, against: Outcomes) -> Row:
    reach = images.sigma * ndtri(ALPHA ** (1.0 / rule.instead_of))
    radii, draws = tuple(radius for radius in rule.radii if radius < reach), outcomes.draws
    accuracy = 100.0 * outcomes.accuracy(images.label, radii)
    difference = accuracy - 100.0 * against.accuracy(images.label, radii)
    return Row(
        log=images.name,
        rule=rule.name,
        images=len(images),
        radii=radii,
        accuracy=tuple(accuracy.tolist()),
        difference=tuple(difference.tolist()),
        worst=float(difference.min()),
        mean=float(draws.mean()),
        median=float(np.median(draws)),
        q90=float(np.quantile(draws, 0.9)),
        most=float(draws.max()),
        factor=float(against.draws.mean() / draws.mean()),
    )


def of_log(
    path: Path,
    *,
    most: int | None = None,
    abstained: str = "continued",
    rival: str = "measured",
    seeds: int = SEEDS,
) -> list[Row]:
    """Every rule on the images of one log, over several sequences of votes."""
    found: list[list[Row]] = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        images = images_of_log(path, rng, most=most, abstained=abstained, rival=rival)
        answers = simulate(images, rng, list(predictions()))
        found.append(simulate(images, rng, list(rules(images.sigma))) + answers)
    return [_averaged(same) for same in zip(*found, strict=True)]


def _averaged(rows: Sequence[Row]) -> Row:
    def mean(name: str) -> Any:
        return np.mean([getattr(row, name) for row in rows], axis=0).tolist()

    first = rows[0]
    return Row(
        first.log,
        first.rule,
        first.images,
        first.radii,
        tuple(mean("accuracy")),
        tuple(mean("difference")),
        min(row.worst for row in rows),
        mean("mean"),
        mean("median"),
        mean("q90"),
        max(row.most for row in rows),
        mean("factor"),
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown, one line a rule."""
    lines = [
        "| rule | draws: mean | median | 90 % | most | fewer | certified at each radius, % | difference, points | worst |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        draws = " | ".join(f"{value:,.0f}" for value in (row.mean, row.median, row.q90, row.most))
        accuracy = " / ".join(f"{value:.1f}" for value in row.accuracy)
        difference = " / ".join(f"{value:+.2f}" for value in row.difference)
        lines.append(
            f"| {row.rule} | {draws} | {row.factor:.1f}x | {accuracy} | {difference} | {row.worst:+.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", type=Path)
    parser.add_argument("--quick", action="store_true", help="1,000 images of each consistency log, once")
    parser.add_argument("--vary", action="store_true", help="other assumptions about abstentions and rivals")
    parser.add_argument("--json", type=Path, help="write all figures there")
    chosen = parser.parse_args()
    most, seeds = (1_000, 1) if chosen.quick else (None, SEEDS)
    found: list[dict[str, Any]] = []
    for path in _logs(chosen.logs, cohen=not chosen.quick):
        for one in ASSUMED if chosen.vary else ASSUMED[:1]:
            rows = of_log(path, most=most, seeds=seeds, abstained=one["abstained"], rival=one["rival"])
            print(f"\n{rows[0].log}, {rows[0].images:,} images, {one}\n\n{table(rows)}", flush=True)
            found += [asdict(row) | one for row in rows]
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


def _logs(folder: Path, *, cohen: bool) -> list[Path]:
    theirs = sorted(folder.glob("consistency/*.tsv"), key=lambda path: path.name[-8:])
    older = sorted(path for path in folder.glob("cohen/certify/**/test/sigma_*") if path.is_file())
    return theirs + (older if cohen else [])


if __name__ == "__main__":
    main()

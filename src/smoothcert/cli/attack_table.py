"""What attacks on a run came to: a table for people, the same and every attack for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from smoothcert.analysis.proportion import Proportion
from smoothcert.analysis.text import TextTable
from smoothcert.attacks.record import FeatureRecord, Record, VoteRecord, by_chance, plain

if TYPE_CHECKING:
    from smoothcert.attacks.search import Search
    from smoothcert.cli.attacked import Attacked


def summary(run: Attacked, records: Sequence[Record], search: Search) -> dict[str, Any]:
    """Plain data: the effort, the totals at each radius, and every attack."""
    alpha = run.specification.rule.alpha
    return {
        "run": str(run.directory),
        "specification": run.specification.identity(),
        "sigma": run.specification.noise.sigma,
        "alpha": alpha,
        "search": asdict(search),
        "broken": sum(bool(record.broken) for record in records),
        "by_chance": by_chance(records, alpha),
        "radii": [_total(found) for found in _by_radius(run, records)],
        "attacks": [plain(record) for record in records],
    }


def table(run: Attacked, records: Sequence[Record]) -> TextTable:
    """One line a radius."""
    groups = _by_radius(run, records)
    header = _FEATURES if run.encodes else _VOTES
    rows = [_feature_row(group) if run.encodes else _vote_row(group) for group in groups]
    alpha = run.specification.rule.alpha
    broken = sum(bool(record.broken) for record in records)
    strong = frozenset((k, len(header) - 1) for k, group in enumerate(groups) if any(r.broken for r in group))
    if broken:
        verdict = (
            f"{broken} CERTIFICATES BROKEN. Each finding is wrong with probability 1e-6; if every claim is "
            f"false with its alpha = {alpha:g}, as many or more come up with probability "
            f"{by_chance(records, alpha):.2g}."
        )
    else:
        verdict = "No certificate was broken. That proves nothing by itself: the certificate does."
    return TextTable(header, tuple(rows), caption=f"{_WORDS[run.encodes]} {verdict}", strong=strong)


_VOTES = ("radius", "images", "right", "right attacked", "95 %", "certified", "success", "broken")
_FEATURES = (
    "radius",
    "images",
    "norm",
    "paper bound",
    "certified",
    "attacked cosine",
    "least gap",
    "answers kept",
    "broken",
)
_WORDS = {
    False: "right: images answered rightly by the run; right attacked: and still after the attack, by fresh "
    "draws, with its interval; certified: right and proved so at that radius, in per cent; success: answers "
    "changed of those that were right.",
    True: "Means over the images: norm |F(x)|, the baseline's bound, the certified cosine, and the cosine "
    "after the attack by fresh draws, in brackets the least one with its 95 % interval; least gap: smallest "
    "attacked less certified cosine; answers kept: of the head.",
}


def _by_radius(run: Attacked, records: Sequence[Record]) -> list[list[Record]]:
    """Records by the radius asked for; attacks at each image's own radius are one group."""
    radii = sorted({record.radius for record in records})
    own = not run.encodes and all(
        isinstance(record, VoteRecord) and record.radius == record.certified for record in records
    )
    if own:
        return [list(records)] if records else []
    return [[record for record in records if record.radius == radius] for radius in radii]


def _total(group: Sequence[Record]) -> dict[str, Any]:
    votes = [record for record in group if isinstance(record, VoteRecord)]
    features = [record for record in group if isinstance(record, FeatureRecord)]
    found: dict[str, Any] = {
        "radius": _radius(group),
        "images": len(group),
        "broken": sum(bool(record.broken) for record in group),
    }
    if votes:
        right, kept = sum(r.correct for r in votes), sum(r.robust for r in votes)
        found |= {
            "right": right,
            "right_attacked": kept,
            "certified": sum(r.correct and r.certified >= r.radius for r in votes),
            "success_rate": (right - kept) / right if right else None,
        }
    if features:
        answers = [r.answers for r in features if r.answers is not None]
        found |= {
            "norm": _mean([r.norm for r in features]),
            "paper": _mean([r.paper for r in features]),
            "certified": _mean([r.certified for r in features]),
            "cosine": _mean([r.cosine for r in features]),
            "least_cosine": min(r.cosine for r in features),
            "least_gap": min(r.cosine - r.certified for r in features),
            "paper_broken": sum(r.paper_broken for r in features),
            "answers_kept": sum(a == b for a, b in answers) if answers else None,
            "accuracy": sum(r.answers is not None and r.answers[0] == r.label for r in features),
            "accuracy_attacked": sum(r.answers is not None and r.answers[1] == r.label for r in features),
        }
    return found


def _vote_row(group: Sequence[Record]) -> tuple[str, ...]:
    total = _total(group)
    kept = Proportion.of(total["right_attacked"], total["images"])
    share = total["success_rate"]
    return (
        "own" if total["radius"] is None else f"{total['radius']:g}",
        str(total["images"]),
        Proportion.of(total["right"], total["images"]).percent(),
        kept.percent(),
        kept.interval(),
        Proportion.of(total["certified"], total["images"]).percent(),
        "-" if share is None else f"{100 * share:.1f}",
        str(total["broken"]),
    )


def _feature_row(group: Sequence[Record]) -> tuple[str, ...]:
    total = _total(group)
    worst = min((r for r in group if isinstance(r, FeatureRecord)), key=lambda record: record.cosine)
    kept = total["answers_kept"]
    return (
        f"{total['radius']:g}",
        str(total["images"]),
        f"{total['norm']:.3f}",
        f"{total['paper']:.4f}",
        f"{total['certified']:.4f}",
        f"{total['cosine']:.4f} ({worst.cosine:.4f} [{worst.lower:.4f}, {worst.upper:.4f}])",
        f"{total['least_gap']:.4f}",
        "-" if kept is None else f"{kept} of {total['images']}",
        str(total["broken"]),
    )


def _radius(group: Sequence[Record]) -> float | None:
    radii = {record.radius for record in group}
    return radii.pop() if len(radii) == 1 else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

"""From a run file's tallies to what they prove. Radii are derived here, on reading, never stored."""

from __future__ import annotations

import glob
import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.certificates import Certificate, Prediction
from smoothcert.certificates.course import Design, Verdict
from smoothcert.certificates.encoding import Encoding
from smoothcert.certificates.grouped import Grouped
from smoothcert.errors import InvalidInput, RunFileError
from smoothcert.runlog.configuration import sampler_name
from smoothcert.runlog.results import Outcome, Results
from smoothcert.runlog.roster import Roster
from smoothcert.runlog.specification import Specification
from smoothcert.runlog.standing import counted_twice, replayed
from smoothcert.runlog.store import DATABASE, RunReader, TallyRow, open_run
from smoothcert.tallies import Tally, merged


@dataclass
class Progress:
    """The merged draws of one image: tally, ranges covered, and seconds, by stage."""

    tallies: dict[str, Tally]
    ranges: dict[str, list[tuple[int, int]]]
    seconds: float = 0.0


def merge(rows: Iterable[TallyRow]) -> dict[int, Progress]:
    """Add up rows by image and stage; ``RunFileError`` where two rows cover the same draw."""
    ordered = sorted(rows, key=lambda row: (row.example, row.stage, row.first))
    by_example = itertools.groupby(ordered, key=lambda row: row.example)
    return {example: _progress(found) for example, found in by_example}


def _progress(rows: Iterable[TallyRow]) -> Progress:
    """One image, from its rows by stage and first draw."""
    image = Progress({}, {})
    for row in rows:
        ranges = image.ranges.setdefault(row.stage, [])
        if ranges and row.first < ranges[-1][1]:
            raise counted_twice(row)
        if ranges and row.first == ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], row.first + row.draws)
        else:
            ranges.append((row.first, row.first + row.draws))
        before = image.tallies.get(row.stage)
        image.tallies[row.stage] = merged([before, row.tally]) if before else row.tally
        image.seconds += row.seconds
    return image


def outcome(
    example: int, label: int, verdict: Verdict, seconds: float, decision: str | None = None
) -> Outcome:
    """What the draws of one image prove, in the form that analyses read.

    ``decision`` asks for another certificate of a head's answer than the one the run chose.
    """
    proof = verdict.proof
    if not isinstance(proof, Certificate | Prediction):
        chosen = next((d for d in proof.decisions if decision in (None, d.rule)), None)
        return Outcome(
            example,
            label,
            chosen.label if chosen else None,
            chosen.radius if chosen else None,
            seconds,
            draws=verdict.draws,
            reason=verdict.reason,
            feature=proof,
        )
    return Outcome(
        example,
        label,
        proof.label,
        None if isinstance(proof, Prediction) else proof.radius,
        seconds,
        hits=proof.votes.count(label),
        draws=verdict.draws,
        reason=verdict.reason,
    )


def results(
    run: RunReader | str | Path, *, alpha: float | None = None, decision: str | None = None
) -> Results:
    """Every finished image of a run with its certificate.

    Args:
        run: an open run, or the path of one.
        alpha: another error probability than the specification's; the result is then marked post hoc,
            because a level chosen after seeing the votes proves nothing at that level.
        decision: of a run with a head, the certificate of its answer to read (``"votes"``, ``"margin"``,
            ``"dual"``), instead of the one the run fixed.

    Raises:
        InvalidInput: an alpha the draws do not allow, or a decision that was not counted.
    """
    reader = open_run(run) if not isinstance(run, RunReader) else run
    specification = reader.specification
    level = _readable_level(specification, alpha)
    labels = Roster.read(reader).labels_of(reader.shard)
    design = specification.design(level)
    _check_decision(design, decision)
    outcomes = []
    for example, standing in replayed(design, reader.checked_tallies(), labels):
        verdict = standing.course.verdict()
        if verdict is not None and example in labels:
            outcomes.append(outcome(example, labels[example], verdict, standing.seconds, decision))
    rule = specification.rule
    return Results(
        name=str(reader.directory),
        outcomes=tuple(outcomes),
        sigma=specification.noise.sigma,
        alpha=level,
        n0=rule.n0,
        n=rule.n,
        alpha_post_hoc=level != rule.alpha,
        planned=len(labels),
        description=describe(specification),
        stop=rule.stop,
        radii=rule.rule.radii,
        out_of_reach=tuple(
            r for r in rule.rule.radii if isinstance(design, Grouped) and r not in design.decidable
        ),
        label_aware=rule.label_aware,
        task=rule.task,
        decision=decision or rule.decision,
        shard=None if reader.shard.whole else str(reader.shard),
    )


def _check_decision(design: Design, decision: str | None) -> None:
    known = design.decisions if isinstance(design, Encoding) else ()
    if decision is not None and decision not in known:
        counted = " or ".join(f"'{name}'" for name in known)
        raise InvalidInput(
            f"decision = {decision!r}",
            f"this run counted {counted}" if known else "this run has no head whose answer is certified",
            f"Write {counted}" if known else "Leave it out, or make a run with --head",
        )


def _readable_level(specification: Specification, alpha: float | None) -> float:
    """The error probability to read at: the specification's, or another where the draws allow one."""
    rule = specification.rule
    if alpha is None or check_alpha(alpha) == rule.alpha:
        return rule.alpha
    if rule.rule.kind not in _READABLE:
        raise InvalidInput(
            f"reading a run with stop = '{rule.stop}' at alpha = {alpha:g}",
            f"its draws ended where alpha = {rule.alpha:g} decided; another would have ended them elsewhere",
            f"Read it at its own alpha, or make a run with --alpha {alpha:g}",
        )
    return alpha


_READABLE = ("fixed", "anytime")  # rules whose number of draws does not depend on alpha


def open_runs(
    *patterns: str | Path, alpha: float | None = None, decision: str | None = None
) -> tuple[Results, ...]:
    """The certificates of every run that the patterns name, smallest sigma first.

    Args:
        patterns: run directories, glob patterns of them (``"runs/dds-*"``), or directories holding runs.
        alpha, decision: as for ``results``.

    Raises:
        RunFileError: a pattern that names no run.
    """
    found = [
        results(directory, alpha=alpha, decision=decision)
        for pattern in patterns
        for directory in run_directories(pattern)
    ]
    return tuple(sorted(found, key=lambda run: (run.sigma or 0.0, run.name)))


def run_directories(pattern: str | Path) -> list[Path]:
    """The run directories a path or glob pattern names; ``RunFileError`` where there is none."""
    matches = [Path(match) for match in sorted(glob.glob(str(pattern)))]
    found = [match for match in matches if (match / DATABASE).is_file()]
    for match in matches:
        if match not in found:
            found += sorted(inner.parent for inner in match.glob(f"**/{DATABASE}"))
    if not found:
        raise RunFileError(
            str(pattern), f"names no directory with a {DATABASE}", "Pass what 'smoothcert certify' wrote"
        )
    return found


def describe(specification: Specification) -> str:
    """Data set and model in a few words; the sampler is named unless it is the usual one."""
    denoiser, how = specification.denoiser, ""
    if denoiser:
        sampler = sampler_name(denoiser.settings)
        how = f" behind denoiser {denoiser.source}" + (
            f" ({sampler})" if sampler not in (None, "one-shot") else ""
        )
    dtype = specification.execution.dtype
    how = (how or ", no denoiser") + (f", {dtype}" if dtype != "float32" else "")
    base, mapper, head = specification.base, specification.mapper, specification.head
    role = "classifier" if specification.classifier else "encoder"
    how += f", mapper {mapper.source}" if mapper else ""
    how += f", head {head.source}" if head else ""
    for role_of, part in (("denoiser", denoiser), (role, base)):
        how += f", {role_of} in {part.settings['backend']}" if part and "backend" in part.settings else ""
    return f"{specification.data.name}: {role} {base.source}{how}"


def tally_digest(run: RunReader) -> str:
    """SHA-256 of the merged tallies: equal for two runs exactly when every count is equal."""
    whole = hashlib.sha256()
    rows = (row for row, _ in run.tallies())
    for example, found in itertools.groupby(rows, key=lambda row: row.example):
        image = _progress(found)
        for stage in sorted(image.tallies):
            whole.update(
                f"{example} {stage} {image.ranges[stage]} {image.tallies[stage].to_json()}\n".encode()
            )
    return whole.hexdigest()

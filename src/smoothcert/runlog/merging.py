"""Shards of a run joined to the whole run: every row checked and copied, none missing and none twice.

Shards of one run share its specification and its list of images, so nothing needs to be translated: the
whole run is the rows of all shards. It is written beside its place and moved there when all was checked.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from smoothcert.errors import InvalidInput, RunFileError, RunLocked, ShardMismatch, SpecificationMismatch
from smoothcert.runlog.configuration import FILE, read_configuration, write_configuration
from smoothcert.runlog.database import sqlite_errors
from smoothcert.runlog.lock import is_locked
from smoothcert.runlog.shard import Shard, holder
from smoothcert.runlog.specification import Specification
from smoothcert.runlog.standing import standings
from smoothcert.runlog.store import ExampleRow, TallyRow, create, open_run

_SHOWN = 5  # images or shards named in a message


@dataclass(frozen=True)
class Part:
    """A run directory to be merged, as far as its head tells; the rows are read when they are copied."""

    directory: Path
    specification: Specification
    shard: Shard
    environment: Mapping[str, Any]

    @classmethod
    def of(cls, directory: Path) -> Part:
        """Read the head of a run file; ``RunLocked`` while somebody is writing it."""
        with closing(open_run(directory)) as run:
            found = cls(run.directory, run.specification, run.shard, run.environment)
        if is_locked(found.directory):
            why = "is being written by another process"
            raise RunLocked(f"the run directory {directory}", why, "Merge when that has ended")
        return found

    def images(self) -> list[ExampleRow]:
        """All images of its run, in index order, which are the same for all of its shards."""
        with closing(open_run(self.directory)) as run:
            return run.checked_examples()

    @property
    def level(self) -> str:
        """The name of the directory of its noise level, as ``certify`` gives it."""
        return f"sigma-{self.specification.noise.sigma:g}"

    def __str__(self) -> str:
        return f"{self.directory} ({'the whole run' if self.shard.whole else f'shard {self.shard}'})"


def merge_shards(directories: Sequence[str | Path], out: str | Path) -> Path:
    """Join all shards of one run to the whole run, as one process would have written it.

    The result is a run like any other: it is read, verified, continued, and equal to the last count to the
    run without shards.

    Args:
        directories: the run directory of every shard, in any order.
        out: the run directory to write, which must not exist.

    Raises:
        SpecificationMismatch: shards of different runs; the message lists every difference.
        ShardMismatch: a shard or a draw that is there twice, a shard that is missing, an image that is not
            finished.
        RunLocked: a shard is being written. RunFileError: ``out`` exists, or a row was edited.

    Whenever it raises, nothing was written.
    """
    parts = fitting([Part.of(directory) for directory in distinct(directories)])
    return write_all({Path(out): parts})[0]


def distinct(directories: Sequence[str | Path]) -> list[Path]:
    """The directories, each once however often it was named."""
    return list({Path(directory).resolve(): Path(directory) for directory in directories}.values())


def by_sigma(directories: Sequence[Path], out: Path) -> dict[Path, list[Part]]:
    """The run to write for each noise level, ``out/sigma-0.25``, and its shards; errors as for the merge."""
    found = [Part.of(directory) for directory in distinct(directories)]
    groups = itertools.groupby(sorted(found, key=attrgetter("level")), key=attrgetter("level"))
    return {out / level: fitting(list(parts)) for level, parts in groups}


def fitting(parts: Sequence[Part]) -> list[Part]:
    """The parts by number, if they are the shards of one run, each once and none missing."""
    if not parts:
        raise InvalidInput(
            "no run directory", "there is nothing to merge", "Name the directories of all shards"
        )
    first, found = parts[0], sorted(parts, key=lambda part: part.shard.number)
    for other in parts[1:]:
        _same_run(first, other)
    for part, after in itertools.pairwise(found):
        if part.shard == after.shard:
            same = "are both the whole run" if part.shard.whole else f"hold the same shard, {part.shard}"
            why = f"{same}, so its draws would be counted twice"
            raise ShardMismatch(f"{part.directory} and {after.directory}", why, "Name one of them")
    _none_missing(found)
    return found


def write_all(runs: Mapping[Path, Sequence[Part]]) -> list[Path]:
    """Write the whole run of each group of parts: all of them, or none where one is refused."""
    for out in runs:
        if out.exists():
            why = "exists already, and a merge writes a new run"
            raise RunFileError(str(out), why, "Choose another directory, or move that one away")
    first = next(iter(runs))
    with sqlite_errors(first), _scratch(first) as scratch:
        drafts = {out: scratch / str(number) for number, out in enumerate(runs)}
        for out, parts in runs.items():
            _write(parts, drafts[out])
        for out, draft in drafts.items():
            out.parent.mkdir(parents=True, exist_ok=True)
            draft.rename(out)
    return list(runs)


def _same_run(first: Part, other: Part) -> None:
    if first.specification.identity() != other.specification.identity():
        lines = first.specification.difference(other.specification)
        raise SpecificationMismatch(
            f"{first.directory} and {other.directory}",
            "hold runs with different specifications, and draws of two runs must not be mixed "
            "(stored in the first, asked for by the second):\n  " + "\n  ".join(lines),
            "\nMerge shards of one run, made by the same command on machines of the same kind",
        )
    if first.shard.count != other.shard.count:
        why = "cut their run differently, so that some images would be there twice and others not at all"
        raise ShardMismatch(f"{first} and {other}", why, "Merge shards of one cut")


def _none_missing(found: Sequence[Part]) -> None:
    count = found[0].shard.count
    there = {part.shard.number for part in found}
    missing = [number for number in range(1, count + 1) if number not in there]
    if not missing:
        return
    lost = [row for rank, row in enumerate(found[0].images()) if holder(rank, count) not in there]
    raise ShardMismatch(
        f"{len(found)} of {count} shards at sigma {found[0].specification.noise.sigma:g}",
        f"{_listed('shard', [f'{number}/{count}' for number in missing])} missing, with {_named(lost)}",
        f"Run the same command with --shard {missing[0]}/{count}"
        f"{' and so on' if missing[1:] else ''}, and merge again",
    )


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A directory on the disk of ``out`` that is gone afterwards; its parents need not exist yet."""
    place = next(parent for parent in out.absolute().parents if parent.is_dir())
    made = Path(tempfile.mkdtemp(prefix=".smoothcert-merge-", dir=place))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write(parts: Sequence[Part], draft: Path) -> None:
    """The whole run, in a directory of its own, of parts that fit together."""
    furthest = max(parts, key=lambda part: part.specification.rule.n)  # only of 'anytime' they can differ
    specification, images = furthest.specification, furthest.images()
    draft.mkdir()
    rows = _rows(parts, specification, images)
    create(draft, specification, images, _environment(parts), rows=rows, in_order=False)
    write_configuration(draft, specification, data_dir=_data_dir(furthest.directory))


def _rows(
    parts: Sequence[Part], specification: Specification, images: Sequence[ExampleRow]
) -> Iterator[TallyRow]:
    """Every row of every part, image by image; at the end an error that names the images not finished."""
    design, unfinished = specification.design(), []
    for part in parts:
        mine = (images[rank] for rank in part.shard.ranks(len(images)))
        left = {row.example: row for row in mine}
        with closing(open_run(part.directory)) as run:
            for example, rows in itertools.groupby(run.checked_rows(), key=attrgetter("example")):
                found = list(rows)
                if example not in left:
                    raise _stray(part, f"draws of image {example}, which belongs to another shard")
                standing = standings(design, found, {example: left[example].label})[example]
                if standing.course.need is None:
                    if standing.unasked:
                        raise _stray(part, f"draws of image {example} that the rule did not ask for")
                    del left[example]
                yield from found
        if left:
            unfinished.append((part, list(left.values())))
    if unfinished:
        raise _not_finished(unfinished, specification)


def _stray(part: Part, what: str) -> RunFileError:
    return RunFileError(
        str(part), f"was edited or damaged: it holds {what}", "Restore it from a copy, or repeat this shard"
    )


def _not_finished(
    unfinished: Sequence[tuple[Part, list[ExampleRow]]], specification: Specification
) -> ShardMismatch:
    """All gaps in one message."""
    shards = [str(part.shard) for part, _ in unfinished]
    images = sorted((row for _, rows in unfinished for row in rows), key=lambda row: row.example)
    behind = specification.rule.rule.kind == "anytime"
    return ShardMismatch(
        f"the shards at sigma {specification.noise.sigma:g}",
        f"{_named(images)} not finished, in {_listed('shard', shards, verb=False)}",
        f"Give the command of each of them again{f' with n = {specification.rule.n}' if behind else ''} "
        f"(first: {unfinished[0][0].directory}), and merge when it has ended",
    )


def _environment(parts: Sequence[Part]) -> dict[str, Any]:
    """Where and when each shard was begun, in the place of where and when the run was."""
    return {"merged_from": [{"shard": str(part.shard), **part.environment} for part in parts]}


def _data_dir(directory: Path) -> Path | None:
    """The folder that must be named to find the data again, if the shard's own configuration names one."""
    if not (directory / FILE).is_file():
        return None
    found = read_configuration(directory / FILE).get("data_dir")
    return Path(found) if found else None


def _named(images: Sequence[ExampleRow]) -> str:
    """``3 images (5, 8, 11)``, the first few by their indices."""
    shown = ", ".join(str(row.example) for row in images[:_SHOWN])
    more = ", ..." if images[_SHOWN:] else ""
    return f"{len(images):,} image{'s' if images[1:] else ''} ({shown}{more})" if images else "no images"


def _listed(word: str, names: Sequence[str], *, verb: bool = True) -> str:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else "")
    are = (" are" if names[1:] else " is") if verb else ""
    return f"{word}{'s' if names[1:] else ''} {shown}{are}"

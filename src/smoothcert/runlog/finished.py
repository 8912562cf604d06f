"""Notes of which images are finished: a run that is continued reads and replays the draws of the others only.

A note is written in the transaction that stores the last draws of its image, and serves nobody but the
writer: ``results`` and ``verify`` replay every image and believe no note.
"""

from __future__ import annotations

from collections.abc import Iterator

from smoothcert.errors import RunFileError
from smoothcert.runlog.database import edited
from smoothcert.runlog.results import Results
from smoothcert.runlog.roster import Roster
from smoothcert.runlog.rows import TallyRow
from smoothcert.runlog.shard import Shard
from smoothcert.runlog.standing import replayed
from smoothcert.runlog.store import RunReader, RunWriter


def begin_notes(run: RunWriter) -> None:
    """Give a file without notes those of its finished images: one of another version, or a merged one.

    Raises:
        RunFileError: any row that does not match its hash.
    """
    noted, open_ended = run.finished(), run.specification.rule.open_ended
    if noted is not None and (noted or open_ended or not run.sums()[0]):
        return
    labels = Roster.read(run).labels_of(run.shard)
    found = () if open_ended else replayed(run.specification.design(), run.checked_tallies(), labels)
    run.note_finished([example for example, standing in found if standing.course.need is None])


def check_notes(run: RunWriter, found: Results) -> None:
    """Compare the notes with what the draws of the finished run prove.

    Raises:
        RunFileError: an image was noted as finished that is not. The notes are dropped, so that the next
            start reads every row and makes the draws that are missing.
    """
    wrong = set(run.finished() or ()).difference(outcome.index for outcome in found.outcomes)
    if wrong:
        run.drop_notes()
        raise RunFileError(
            f"the run file in {run.directory}",
            f"was edited: it noted images as finished whose draws are missing ({sorted(wrong)[:5]})",
            "The notes were removed: run the same command again, and it makes the missing draws",
        )


def finished_flags(run: RunReader, roster: Roster) -> bytearray | None:
    """For each image of the roster, 1 where it needs nothing; ``None`` where there are no notes.

    It needs nothing where it is noted as finished, and where it belongs to another shard.

    Raises:
        RunFileError: a note about an image that the run does not have.
    """
    noted = None if run.specification.rule.open_ended else run.finished()
    if noted is None:
        return None
    flags = others(run.shard, roster)
    try:
        for example in noted:
            flags[roster.position(example)] = 1
    except (KeyError, TypeError) as error:
        raise edited(run.directory, f"image {error} is noted as finished and not of the run") from error
    return flags


def others(shard: Shard, roster: Roster) -> bytearray:
    """For each image of the roster, 1 where it belongs to another shard."""
    if shard.whole:
        return bytearray(len(roster))
    flags = bytearray(b"\1") * len(roster)
    for position in shard.positions(roster.examples):
        flags[position] = 0
    return flags


def unfinished_ranges(roster: Roster, flags: bytearray) -> Iterator[tuple[int, int]]:
    """The first and last stream name of each stretch of images that are not finished, ascending."""
    order = roster.order
    ranked = flags if roster.ascending else bytearray(flags[position] for position in order)
    start = ranked.find(0)
    while start >= 0:
        end = ranked.find(1, start)
        last = (end if end >= 0 else len(ranked)) - 1
        yield roster.examples[order[start]], roster.examples[order[last]]
        start = ranked.find(0, last + 1)


def unfinished_rows(run: RunReader, roster: Roster, flags: bytearray) -> Iterator[TallyRow]:
    """The stored rows of the images that are not finished, after comparing the hash of each.

    Raises:
        RunFileError: an edited or foreign row, or one of an image that the run does not have.
    """
    labels = roster.labels
    for first, last in unfinished_ranges(roster, flags):
        for row in run.rows_of(first, last):
            if row.example not in labels:
                raise edited(run.directory, f"it holds draws of image {row.example}, which it does not have")
            yield row

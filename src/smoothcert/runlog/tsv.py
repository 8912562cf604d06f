"""The field's certification logs: tab-separated, one line per image, in the dialects people publish.

Cohen et al. 2019 write ``idx label predict radius correct time``, with -1 for an abstention; their prediction
logs have no radius. Descendants rename columns, add some, leave the label out, or count correct answers
upward in ``correct`` instead of flagging them. Inside the package an abstention is ``None``; -1 lives here
only. May import errors and its own room.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from decimal import ROUND_DOWN, Decimal
from pathlib import Path

from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Outcome, Results
from smoothcert.runlog.tsv_rows import (
    ABSTAIN,
    Row,
    check_rows,
    columns_of,
    cut_short,
    is_cut,
    lines_of,
    row_of,
    verdicts,
)


def write_cohen_tsv(results: Results, path: str | Path) -> None:
    """Export a run in the format of Cohen et al., for tools that read it.

    Abstentions become -1; radii are rounded down to 6 decimals, so that the file never claims more than the
    run; predictions without radii are written without that column. The file appears whole or not at all.

    Raises:
        InvalidInput: some outcomes have no label, or only some have a radius.
    """
    radii = {outcome.radius is not None for outcome in results.outcomes}
    if len(radii) > 1 or any(outcome.label is None for outcome in results.outcomes):
        raise InvalidInput(
            f"results of {results.name}",
            "the format needs a label for every image, and a radius for every image or for none",
            "Export certificates and predictions of labelled images separately",
        )
    certified = radii != {False}
    header = ["idx", "label", "predict", *(["radius"] if certified else []), "correct", "time"]
    lines = [header, *(_fields(outcome) for outcome in results.outcomes)]
    _write_whole(Path(path), "".join("\t".join(line) + "\n" for line in lines))


def read_tsv(
    path: str | Path,
    *,
    sigma: float | None = None,
    n: int | None = None,
    n0: int | None = None,
    alpha: float | None = None,
    planned: int | None = None,
    description: str = "",
    radius_digits: int | None = None,
    partial: bool = False,
) -> Results:
    """Import somebody's certification or prediction log.

    Correctness is ``predict == label``. The file's ``correct`` column must agree with that, as a flag or as a
    running total (the published diffusion-denoised-smoothing code writes a total); without a label column it
    is the only verdict there is.

    The radii of logs written with ``{:.3}``, Cohen's among them, are rounded to 3 significant digits, half of
    them upward, so some images cross a threshold such as 0.25 that their certificate does not reach. The
    published tables were computed from these rounded radii. ``radius_digits=3`` lowers each radius to the
    smallest number that prints the same; accuracies can then only fall.

    Args:
        path: the log.
        sigma, n, n0, alpha: what the file does not say and its reader may know.
        planned: number of images the run was meant to cover, if known.
        description: data set and model in a few words.
        radius_digits: significant digits the writer rounded radii to; ``None`` takes them as they stand.
        partial: accept a last line that a killed run left unfinished; the line is dropped and the result is
            marked truncated.

    Raises:
        RunFileError: not such a file, or a line that contradicts itself; the message has the line number.
        InvalidInput: ``radius_digits`` below 1.
    """
    lines, ended = lines_of(Path(path))
    columns = columns_of(str(path), lines[0][1])
    body = [(number, text) for number, text in lines[1:] if text != lines[0][1]]
    truncated = not ended and is_cut(body[-1][1], columns) if body else False
    if truncated and not partial:
        raise cut_short(str(path), body[-1][0])
    if body and not ended:  # either the line is unusable or its time, the last field, may be cut
        number, text = body.pop()
        body += [] if truncated else [(number, text[: text.rindex("\t") + 1])]
    rows = [row_of(f"{path}, line {number}", number, text, columns) for number, text in body]
    check_rows(str(path), rows)
    outcomes = _outcomes(rows, verdicts(str(path), rows), _lowering(radius_digits))
    return Results(str(path), outcomes, sigma, alpha, n0, n, False, planned, description, truncated)


def _fields(outcome: Outcome) -> list[str]:
    """One exported line."""
    predicted = ABSTAIN if outcome.predicted is None else outcome.predicted
    radius = [] if outcome.radius is None else [_rounded_down(outcome.radius)]
    seconds = "" if outcome.seconds is None else _clock(outcome.seconds)
    return [*map(str, (outcome.index, outcome.label, predicted)), *radius, str(int(outcome.correct)), seconds]


def _rounded_down(radius: float) -> str:
    if not 0.0 <= radius < math.inf:
        raise InvalidInput(
            f"radius {radius!r}", "a certified radius is finite and not negative", "Check the run"
        )
    return f"{Decimal(repr(radius)).quantize(Decimal('1e-6'), ROUND_DOWN):f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds * 1e6), 60_000_000)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 1_000_000:02d}.{rest % 1_000_000:06d}"


def _write_whole(path: Path, text: str) -> None:
    """Write beside the target, then rename: a reader sees the old file or the new one, never half."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _lowering(digits: int | None) -> Callable[[float | None], float | None]:
    """How to take back the rounding of radii printed with so many significant digits."""
    if digits is not None and digits < 1:
        raise InvalidInput(
            f"radius_digits = {digits}", "a number has at least one digit", "Write 3 for '{:.3}'"
        )

    def lower(radius: float | None) -> float | None:
        if not radius or digits is None:
            return radius
        # half a unit of the last printed digit; at a power of ten the step below is ten times finer,
        # and the coarser one taken here is the safe side
        exponent = Decimal(repr(radius)).adjusted() - digits + 1
        return max(0.0, math.nextafter(float(Decimal(repr(radius)) - Decimal(5).scaleb(exponent - 1)), 0.0))

    return lower


def _outcomes(
    rows: Sequence[Row], verdicts: Sequence[bool | None], lower: Callable[[float | None], float | None]
) -> tuple[Outcome, ...]:
    outcomes = [
        Outcome(row.index, row.label, row.predicted, lower(row.radius), row.seconds, verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
    ]
    return tuple(sorted(outcomes, key=lambda outcome: outcome.index))

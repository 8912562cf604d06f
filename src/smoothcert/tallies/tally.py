"""What all tallies have in common: a number of draws, addition, and a form in the run file."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Iterable
from typing import TypeVar

from smoothcert.errors import InvalidInput
from smoothcert.tallies.features import Features
from smoothcert.tallies.scores import Scores
from smoothcert.tallies.votes import Votes

Tally = Votes | Features | Scores
Same = TypeVar("Same", Votes, Features, Scores)


def merged(tallies: Iterable[Tally]) -> Tally:
    """All of them added up; no votes where there are none."""
    found = [tally for tally in tallies if tally.total]
    return functools.reduce(operator.add, found) if found else Votes()


def tally_from_json(text: str) -> Tally:
    """Read the JSON of any tally; anything else raises ``InvalidInput``."""
    if not text.startswith(('{"features"', '{"draws"')):
        return Votes.from_json(text)
    try:
        stored = json.loads(text)
        return Scores.from_plain(stored) if "scores" in stored else Features.from_plain(stored)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(
            f"tally {text[:80]!r}", f"is not readable ({error})", "Restore the run file from a copy"
        ) from error

"""Is a run file fit to be continued? What SQLite finds, and what the file says of the rule it follows."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from smoothcert.runlog.database import DATABASE, edited

if TYPE_CHECKING:
    from smoothcert.runlog.store import RunReader

# Larger files, in bytes, are not checked whole before a run goes on, but at its end and by verify.
_LOOKED_THROUGH = 1 << 26  # by SQLite
_READ_THROUGH = 1 << 23  # row by row, also those of images noted as finished, which nobody reads otherwise


def check_undamaged(run: RunReader) -> None:
    """``RunFileError`` for damage in a file of which looking at everything takes no time to speak of."""
    size = (run.directory / DATABASE).stat().st_size
    if size <= _LOOKED_THROUGH and (found := run.integrity()) != "ok":
        raise edited(run.directory, f"SQLite says: {' '.join(found.split())[:300]}")
    if size <= _READ_THROUGH:
        for _ in run.checked_tallies():
            pass


def check_boundaries(run: RunReader) -> None:
    """``RunFileError`` where the stored looks and boundaries are not those of the rule: verify would fail."""
    if not same_facts(run.design_facts, run.specification.design().facts()):
        raise edited(run.directory, "its looks and boundaries are not those that its rule has")


def same_facts(stored: Any, derived: Any) -> bool:
    """Equal, but for the last digits of a probability, which another processor may round differently."""
    return _same(stored, json.loads(json.dumps(derived)))


def _same(stored: Any, derived: Any) -> bool:
    if isinstance(stored, float) and isinstance(derived, float):
        return math.isclose(stored, derived, rel_tol=1e-8)
    if isinstance(stored, list) and isinstance(derived, list):
        return len(stored) == len(derived) and all(map(_same, stored, derived))
    if isinstance(stored, dict) and isinstance(derived, dict):
        return stored.keys() == derived.keys() and all(_same(stored[key], derived[key]) for key in stored)
    return bool(stored == derived)

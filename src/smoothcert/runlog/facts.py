"""Is a run file fit to be continued? What SQLite finds, and what the file says of the rule it follows."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from smoothcert.runlog.database import DATABASE, edited

if TYPE_CHECKING:
    from smoothcert.runlog.store import RunReader

_LOOKED_THROUGH = 1 << 26  # bytes: a larger file is not checked whole before a run goes on, but by verify


def check_undamaged(run: RunReader) -> None:
    """``RunFileError`` for a file that SQLite finds damaged, where looking at all of it takes no time."""
    if (run.directory / DATABASE).stat().st_size > _LOOKED_THROUGH:
        return
    if (found := run.integrity()) != "ok":
        raise edited(run.directory, f"SQLite says: {' '.join(found.split())[:300]}")


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

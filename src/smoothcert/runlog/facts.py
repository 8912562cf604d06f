"""Looks and boundaries of a stopping rule as a run file stores them, and as they are derived afresh."""

from __future__ import annotations

import json
import math
from typing import Any


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

"""Where the real data and weights for tests are, and the skip that says so where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("SMOOTHCERT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def needs(*parts: str) -> pytest.MarkDecorator:
    """Skip where these files are not below ``DATA``."""
    absent = [part for part in parts if not (DATA / part).exists()]
    return pytest.mark.skipif(
        bool(absent), reason=f"{', '.join(absent)} not in {DATA} (SMOOTHCERT_TEST_DATA)"
    )

"""Images in use by several threads: each thread gets the one it asks for, and few are kept."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.engine import targets

from smoothcert.engine import evaluate
from smoothcert.engine.evaluate import Images
from smoothcert.engine.specify import roster_of
from smoothcert.smoothing.noise import GridNoise

IMAGES, KEPT, THREADS = 12, 3, 8


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads take turns after a microsecond, so that what may go wrong between two of them does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient")
def test_threads_get_the_images_they_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_KEPT_IMAGES", KEPT)
    data = targets.images(IMAGES)
    images = Images(data, noise := GridNoise(0.5, 255), roster_of(data).place)
    expected = [noise.prepare(data[k].image) for k in range(IMAGES)]

    def ask(seed: int) -> int:
        turns = random.Random(seed)
        asked = [turns.randrange(IMAGES) for _ in range(3_000)]
        return sum(np.array_equal(images[k], expected[k]) for k in asked)

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(ask, range(THREADS))) == THREADS * 3_000
    assert len(images._kept) == KEPT

"""On an accelerator the batch size is found before the first draw, stored, and not looked for again.

The accelerator is a stand-in with room for 100 draws; the run, its file and its draws are real.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import smoothcert as sc
from smoothcert.engine import prepare
from smoothcert.errors import OutOfMemory
from smoothcert.runlog.specification import RuleSpec
from smoothcert.runlog.store import open_run

DATA = "digits:test[:3]"
RULE = RuleSpec(task="certify", alpha=0.01, n0=20, n=180)


class Accelerator:
    """Brightest quarter of an image; no more than ``room`` images at once."""

    def __init__(self, room: int) -> None:
        self.room, self.asked = room, list[int]()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(images))
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return (images * 16).round().unflatten(2, (2, 4)).unflatten(4, (2, 4)).sum((1, 3, 5)).flatten(1)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Accelerator:
    for module in ("smoothcert.engine.job", "smoothcert.smoothing.batch_size"):
        monkeypatch.setattr(f"{module}.is_accelerator", lambda device: True)
    return Accelerator(100)


def test_the_batch_that_fits_is_part_of_the_run_and_found_once(device: Accelerator, tmp_path: Path) -> None:
    smoothed = sc.SmoothedClassifier(device, 0.25)
    job = prepare(smoothed, DATA, tmp_path, RULE)
    assert job.specification.execution.batch == 64
    job.run(quiet=True)
    assert open_run(tmp_path).specification.execution.batch == 64
    device.asked.clear()
    assert prepare(smoothed, DATA, tmp_path, RULE).specification.execution.batch == 64
    assert set(device.asked) == {64}, "continuing asks with the stored size only"


def test_a_size_that_was_asked_for_is_not_second_guessed(device: Accelerator, tmp_path: Path) -> None:
    job = prepare(sc.SmoothedClassifier(device, 0.25), DATA, tmp_path, RULE, batch=16)
    assert job.specification.execution.batch == 16
    assert set(device.asked) == {16}


def test_memory_that_ends_in_a_run_loses_nothing(device: Accelerator, tmp_path: Path) -> None:
    smoothed = sc.SmoothedClassifier(device, 0.25)
    job = prepare(smoothed, DATA, tmp_path / "run", RULE, workers=1)
    device.asked.clear()
    room, answer = device.room, device.__class__.__call__

    def short_of_memory(self: Accelerator, images: torch.Tensor) -> torch.Tensor:
        self.room = 10 if len(self.asked) == 4 else room
        return answer(self, images)

    device.__class__.__call__ = short_of_memory  # type: ignore[method-assign]
    try:
        with pytest.raises(OutOfMemory, match=r"stored.*--batch 32"):
            job.run(quiet=True)
        stored = sum(row.draws for row, _ in open_run(tmp_path / "run").tallies())
        assert stored == 4 * 64
        found = prepare(smoothed, DATA, tmp_path / "run", RULE, workers=1).run(quiet=True)
    finally:
        device.__class__.__call__ = answer  # type: ignore[method-assign]
    again = prepare(smoothed, DATA, tmp_path / "other", RULE, workers=1).run(quiet=True)
    assert [one.radius for one in found.outcomes] == [one.radius for one in again.outcomes]

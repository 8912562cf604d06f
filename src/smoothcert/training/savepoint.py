"""A training that may be interrupted: its whole state in one file, replaced at once or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from smoothcert.errors import CheckpointError

SECONDS_BETWEEN = 60.0
SAVEPOINT = "training.pt"


@dataclass
class Course:
    """How far a training has come: steps made, seconds it took, and the losses on the way."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


class Savepoint:
    """The last kept state of one training.

    Batches must be a pure function of (seed, step), as they are not part of the state.

    Args:
        path: the file.
        settings: everything that names the training; the state of another one is refused.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._settings = json.dumps(dict(settings), sort_keys=True)
        self._last = time.monotonic()

    def restore(self, parts: Mapping[str, Any]) -> Course:
        """How far the training was; the parts are set to their state then. The start, without a file.

        Raises:
            CheckpointError: the file is damaged, or of a training with other settings.
        """
        if not self.path.exists():
            return Course()
        state = self._read()
        if state["settings"] != self._settings:
            why = f"it belongs to a training with settings {state['settings']}, not {self._settings}"
            raise CheckpointError(f"savepoint {str(self.path)!r}", why, "Delete it, or train elsewhere")
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        return Course(**state["course"])

    def keep(self, course: Course, parts: Mapping[str, Any]) -> None:
        """Write the state if the last time was long enough ago."""
        if time.monotonic() - self._last < SECONDS_BETWEEN:
            return
        states = {name: part.state_dict() for name, part in parts.items()}
        state = {"settings": self._settings, "course": asdict(course), "parts": states}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".writing")
        torch.save(state, fresh)
        os.replace(fresh, self.path)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Forget the state; the training is finished and its result saved."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            if not {"settings", "course", "parts"} <= state.keys():
                raise ValueError("it is no savepoint")
        except Exception as error:  # torch.load raises many kinds for a damaged file
            why = f"it cannot be read ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            raise CheckpointError(f"savepoint {str(self.path)!r}", why, "Delete it to start anew") from error
        return state

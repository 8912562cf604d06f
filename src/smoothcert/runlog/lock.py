"""One writer a run directory: an advisory lock that the system drops when its process dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from smoothcert.errors import RunFileError, RunLocked

if sys.platform == "win32":
    import msvcrt

    def _acquire(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _acquire(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class RunLock:
    """Held from construction to ``release``; ``RunLocked`` where another process holds it."""

    def __init__(self, directory: Path) -> None:
        try:
            self._descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunFileError(
                f"the run directory {directory}",
                f"cannot be written ({error})",
                "Choose a directory you can write to",
            ) from error
        try:
            _acquire(self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            raise RunLocked(
                f"the run directory {directory}",
                "is being written by another process, and two writers would draw the same work twice",
                "Wait for it ('smoothcert status' shows its progress) or stop it first",
            ) from error

    def release(self) -> None:
        """Let others write. Harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_locked(directory: Path) -> bool:
    """Whether a process is writing the run right now; asked without disturbing it."""
    if not (directory / ".lock").exists():
        return False
    try:
        RunLock(directory).release()
    except RunLocked:
        return True
    except RunFileError:
        return False
    return False

"""Every exception a caller of smoothcert can catch.

Lives on floor 0 and imports nothing. Each message has three parts: what was given, why it cannot work or
cannot be sound, and what to write instead. ``SmoothcertError`` is the one base class to catch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SmoothcertError(Exception):
    """Base class. ``given`` is what the caller wrote, ``why`` the reason, ``instead`` the way out."""

    def __init__(self, given: str, why: str, instead: str) -> None:
        self.given, self.why, self.instead = given, why, instead
        super().__init__(f"{given}: {why}. {instead}")

    def __reduce__(self) -> tuple[type[SmoothcertError], tuple[str, str, str]]:
        return type(self), (self.given, self.why, self.instead)


class InvalidInput(SmoothcertError, ValueError):
    """A value that cannot work: sigma <= 0, alpha outside (0, 1), NaN, a wrong shape or scale."""


class UnknownName(SmoothcertError, LookupError):
    """A model, data set, table or schedule nobody has heard of; the message lists what exists."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str]) -> UnknownName:
        """Build the message from the names that do exist, closest first."""
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        return cls(f"{kind} {name!r}", "is not known", f"{hint}Known: {', '.join(names) or 'none'}")


class MissingExtra(SmoothcertError, ImportError):
    """An optional dependency is not installed; the message holds the install line."""

    @classmethod
    def install(cls, package: str, extra: str, purpose: str) -> MissingExtra:
        """Build the message for ``pip install "smoothcert[extra]"``."""
        return cls(
            purpose, f"needs {package}, which is not installed", f'Run: pip install "smoothcert[{extra}]"'
        )


class CheckpointError(SmoothcertError):
    """Weights that are missing, corrupt, of another architecture, or not what their card says."""


class DataError(SmoothcertError):
    """Files of a data set that are missing, damaged, or not what their format or their name promises."""


class UnsoundModel(SmoothcertError):
    """A model for which no certificate can hold, such as one whose answers depend on batch mates."""


class ModelOutputError(SmoothcertError):
    """A model that returned something of the wrong shape or type."""


class OutOfMemory(SmoothcertError, MemoryError):
    """A batch that does not fit into the memory of its device."""


class EndpointError(SmoothcertError):
    """A classifier behind a network address that does not answer, or refuses to."""


class RunFileError(SmoothcertError):
    """A run directory that cannot be used: corrupt, foreign, unreadable, or written by a newer version."""


class SpecificationMismatch(RunFileError):
    """A run directory that holds another specification; the message shows the difference."""


class ShardMismatch(RunFileError):
    """Shards that do not make up one whole run: something is missing, unfinished, or there twice."""


class RunLocked(RunFileError):
    """Another process is writing this run."""


class VerificationFailed(SmoothcertError):
    """A run file whose contents do not support its claims."""


class CertificateBroken(SmoothcertError):
    """An attack inside a certified radius that succeeded, with evidence from draws it never saw."""


class Interrupted(SmoothcertError):
    """The run was stopped from outside; everything finished is stored and the same command continues."""


class WorkersLost(SmoothcertError):
    """The workers of a cluster died again and again, or none of them could be used."""


class WorkerRefused(SmoothcertError):
    """A worker whose models, library versions or device are not those that the run's specification names."""

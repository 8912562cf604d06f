"""smoothcert: provable L2 robustness for models people already have, by randomized smoothing.

Rooms and names load when they are first used, so that reading a run (``open_runs``, ``analysis``,
``report``) never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "SmoothedClassifier": "smoothcert.smoothing",
    "SmoothedEncoder": "smoothcert.smoothing",
    "SmoothedVLM": "smoothcert.smoothing.vlm",
    "ZeroShotHead": "smoothcert.encoders",
    "certify": "smoothcert.engine",
    "predict": "smoothcert.engine",
    "encode": "smoothcert.engine",
    "open_run": "smoothcert.runlog",
    "open_runs": "smoothcert.runlog",
    "verify": "smoothcert.runlog",
    "SmoothcertError": "smoothcert.errors",
}
_ROOMS = (
    "analysis",
    "attacks",
    "backends",
    "bounds",
    "certificates",
    "classifiers",
    "datasets",
    "denoisers",
    "diffusion",
    "encoders",
    "engine",
    "errors",
    "report",
    "runlog",
    "smoothing",
    "training",
)

__all__ = ["__version__", *sorted(_HOME), *_ROOMS]

if TYPE_CHECKING:  # what the names below stand for, for type checkers and editors
    from smoothcert import (  # noqa: F401
        analysis,
        attacks,
        backends,
        bounds,
        certificates,
        classifiers,
        datasets,
        denoisers,
        diffusion,
        encoders,
        engine,
        errors,
        report,
        runlog,
        smoothing,
        training,
    )
    from smoothcert.encoders import ZeroShotHead  # noqa: F401
    from smoothcert.engine import certify, encode, predict  # noqa: F401
    from smoothcert.errors import SmoothcertError  # noqa: F401
    from smoothcert.runlog import open_run, open_runs, verify  # noqa: F401
    from smoothcert.smoothing import SmoothedClassifier, SmoothedEncoder  # noqa: F401
    from smoothcert.smoothing.vlm import SmoothedVLM  # noqa: F401


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"smoothcert.{name}")
    raise AttributeError(f"module 'smoothcert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

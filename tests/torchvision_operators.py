"""torchvision beside another torch: declares the two operators whose absence stops its import. Tests only.

Its compiled library is for one build of torch; beside another (a CPU one, say) ``import torchvision`` fails
although models and transforms are plain Python.
"""

from __future__ import annotations

import importlib
import sys

import torch

_OPERATORS = "nms", "qnms"
_kept: list[torch.library.Library] = []


def import_torchvision() -> None:
    """Import torchvision, with stand-ins for its operators where they are needed; ``ImportError`` if absent."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in _OPERATORS:
            library.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        _kept.append(library)  # it declares them for as long as it lives
        importlib.import_module("torchvision")

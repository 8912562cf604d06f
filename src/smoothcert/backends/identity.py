"""Who a part is: the modules it consists of, the hash of their weights, the hash of its code."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn


def modules_of(part: Any) -> list[nn.Module]:
    """The torch modules of a classifier or denoiser: itself, or those it keeps as attributes."""
    if isinstance(part, nn.Module):
        return [part]
    return [value for value in getattr(part, "__dict__", {}).values() if isinstance(value, nn.Module)]


def weight_hash(modules: Sequence[nn.Module]) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor of the modules' states, in name order."""
    whole = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            array = tensor.detach().cpu().contiguous()
            whole.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
            # Flat, because an axis of size 1 may keep a stride that no view of bytes allows.
            whole.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def code_hash(function: Any) -> str | None:
    """SHA-256 of the source file that defines a function, ``None`` where there is none to read.

    It notices that the file changed, not that a closure or a global holds another value.
    """
    try:
        file = inspect.getsourcefile(function if hasattr(function, "__code__") else type(function))
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    except (TypeError, OSError):
        return None


def weights_of(part: Any) -> str | None:
    """The hash of a part's weights: of its modules, or as it says; ``None`` where nobody can tell."""
    if hasattr(part, "weights_sha256"):
        stated: str | None = part.weights_sha256
        return stated
    modules = modules_of(part)
    return weight_hash(modules) if modules else None


def source_of(part: Any) -> str:
    """The name by which a part was found."""
    named = getattr(part, "source", None) or getattr(part, "__qualname__", None)
    return str(named or type(part).__qualname__)


def files_hash(files: Mapping[str, bytes]) -> str:
    """SHA-256 over the names and contents of a converted model's files."""
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}" for name in sorted(files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def plain_hash(value: Mapping[str, Any]) -> str:
    """SHA-256 of plain data as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

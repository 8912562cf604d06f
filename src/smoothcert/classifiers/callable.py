"""Any callable as a classifier, with its answers checked: what a user plugs in is not trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.errors import InvalidInput, ModelOutputError

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class CallableClassifier:
    """A user's function or module as a classifier: images in, checked scores or labels out.

    A ``torch.nn.Module`` is put in eval mode before every call, as training mode draws random numbers and
    mixes the images of a batch. No gradients are suppressed here, as attacks need them.

    Args:
        function: images ``(B, C, H, W)`` -> scores ``(B, classes)`` or integer labels ``(B,)``.
        name: how messages and a run's specification call it; kept as ``source``.
    """

    def __init__(self, function: Callable[[Tensor], Any], *, name: str | None = None) -> None:
        if not callable(function):
            raise InvalidInput(
                f"classifier of type {type(function).__name__}",
                "it cannot be called",
                "Give a function or module from images (B, C, H, W) to scores (B, classes)",
            )
        self.function = function
        self.source = name or str(getattr(function, "__qualname__", type(function).__qualname__))

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification: the function's own description, if it has one."""
        own = getattr(self.function, "describe", None)
        return {"kind": "callable", **({"function": own()} if callable(own) else {})}

    def __call__(self, images: Tensor, /) -> Tensor:
        """Scores ``(B, classes)`` or labels ``(B,)``.

        Raises:
            ModelOutputError: the answer is no tensor of that kind for this batch.
        """
        if isinstance(self.function, nn.Module) and any(part.training for part in self.function.modules()):
            self.function.eval()
        return checked(unwrapped(self.function(images)), len(images), self.source)

    def __repr__(self) -> str:
        return f"CallableClassifier({self.source})"


def unwrapped(output: Any) -> Any:
    """The scores of an answer; Hugging Face models return an object that holds them as ``logits``."""
    return getattr(output, "logits", output)


def checked(output: Any, batch: int, name: str) -> Tensor:
    """An answer that is scores ``(B, classes)`` or labels ``(B,)``; ``ModelOutputError`` for others."""
    wanted = f"scores ({batch}, classes) or integer labels ({batch},)"
    if not isinstance(output, Tensor):
        found = f"classifier {name} returned {type(output).__name__}"
        raise ModelOutputError(found, "it is not a tensor", f"Return {wanted}")
    labels = output.shape == (batch,) and output.dtype in _INTEGERS
    scores = output.ndim == 2 and len(output) == batch and output.shape[1] > 0 and output.is_floating_point()
    if not (labels or scores):
        found = f"classifier {name} returned {tuple(output.shape)} {output.dtype}"
        raise ModelOutputError(found, f"for {batch} images it must be {wanted}", "Return one of these")
    return output

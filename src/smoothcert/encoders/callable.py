"""Any callable as an encoder, with its answers checked: what a user plugs in is not trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from smoothcert.errors import InvalidInput, ModelOutputError


class CallableEncoder:
    """A user's function or module as an encoder: images in, features of one length out, checked.

    A ``torch.nn.Module`` is put in eval mode before every call, as training mode draws random numbers and
    mixes the images of a batch. No gradients are suppressed here, as attacks need them.

    Args:
        function: images ``(B, C, H, W)`` -> features ``(B, k)`` or ``(B, T, d)``, floating point.
        name: how messages and a run's specification call it; kept as ``source``.

    Attributes:
        shape: of one feature, ``(k,)`` or ``(T, d)``; ``None`` before the first call.
    """

    def __init__(self, function: Callable[[Tensor], Any], *, name: str | None = None) -> None:
        if not callable(function):
            raise InvalidInput(
                f"encoder of type {type(function).__name__}",
                "it cannot be called",
                "Give a function or module from images (B, C, H, W) to features (B, k)",
            )
        self.function = function
        self.source = name or str(getattr(function, "__qualname__", type(function).__qualname__))
        self.shape: tuple[int, ...] | None = None

    @property
    def dimension(self) -> int | None:
        """k of ``(B, k)``, d of ``(B, T, d)``; ``None`` before the first call."""
        return self.shape[-1] if self.shape else None

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification: the function's own description, if it has one."""
        own = getattr(self.function, "describe", None)
        return {"kind": "callable", **({"function": own()} if callable(own) else {})}

    def __call__(self, images: Tensor, /) -> Tensor:
        """Features ``(B, k)`` or ``(B, T, d)``.

        Raises:
            ModelOutputError: the answer is no features of that kind for this batch, or of another length than
                those before.
        """
        if isinstance(self.function, nn.Module) and any(part.training for part in self.function.modules()):
            self.function.eval()
        features = checked(self.function(images), len(images), self.source, self.shape)
        self.shape = tuple(features.shape[1:])
        return features

    def __repr__(self) -> str:
        return f"CallableEncoder({self.source})"


def checked(output: Any, batch: int, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
    """An answer that is features ``(B, k)`` or ``(B, T, d)``, of the ``shape`` that features had before.

    Raises:
        ModelOutputError: anything else.
    """
    wanted = f"features ({batch}, k), or ({batch}, T, d) of T tokens, in floating point"
    if not isinstance(output, Tensor):
        found = f"encoder {name} returned {type(output).__name__}"
        instead = f"Return {wanted}: of a model of transformers, its pooler_output"
        raise ModelOutputError(found, "it is not a tensor", instead)
    usable = output.ndim in (2, 3) and len(output) == batch and output.is_floating_point() and output.numel()
    if not usable:
        found = f"encoder {name} returned {tuple(output.shape)} {output.dtype}"
        raise ModelOutputError(found, f"for {batch} images it must be {wanted}", "Return one of these")
    if shape is not None and tuple(output.shape[1:]) != shape:
        before, now = ("x".join(map(str, sides)) for sides in (shape, output.shape[1:]))
        found = f"encoder {name} returned features of {now} numbers after features of {before}"
        why = "features of different lengths have no common mean and no common direction"
        raise ModelOutputError(found, why, "Return features of one length, and give images of one size")
    return output

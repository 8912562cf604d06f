"""The base classifier of a certificate: denoise, classify, take the label. What a user plugs in is untrusted.

A batch goes in at one fixed shape and labels come out; every output is checked for type, shape and
finiteness on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smoothcert.errors import InvalidInput, ModelOutputError, UnknownName
from smoothcert.protocols import Draws

NONFINITE = -1  # stands for "no class" between the network and the tally, nowhere else


Module = TypeVar("Module", bound=nn.Module)

PRECISIONS = ("float32", "bf16-mixed")
"""``bf16-mixed``: convolutions and matrix products in bfloat16 (torch's autocast), all else in float32. That
is another base classifier, with a certificate of its own that is worth as much."""


def default_batch(shape: tuple[int, ...], device: str = "cpu") -> int:
    """Draws in one batch: a fixed function of the image size, so that the same command names the same run.

    On a CPU 256 at 8x8, 32 at 3x32x32, 16 at 3x224x224 (larger batches are slower there); 8 times that on
    an accelerator.
    """
    fitting = max(1, 131_072 // int(np.prod(shape)))
    power: int = 2 ** (fitting.bit_length() - 1)
    return min(max(power, 16), 256) * (1 if device == "cpu" else 8)


@contextmanager
def intra_op_threads(threads: int) -> Iterator[None]:
    """Give each network call this many threads, and put back what was before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def modules_of(part: Any) -> list[nn.Module]:
    """The torch modules of a classifier or denoiser: itself, or those it keeps as attributes."""
    if isinstance(part, nn.Module):
        return [part]
    return (
        [value for value in vars(part).values() if isinstance(value, nn.Module)]
        if hasattr(part, "__dict__")
        else []
    )


class Network:
    """Denoiser and classifier as one function from noisy images to scores, in evaluation mode."""

    def __init__(
        self, classifier: Any, denoiser: Any | None, sigma: float, device: str, precision: str = "float32"
    ) -> None:
        if precision not in PRECISIONS:
            raise UnknownName.among("precision", precision, PRECISIONS)
        for part in (classifier, denoiser):
            if part is not None and not callable(part):
                raise InvalidInput(
                    f"a model of type {type(part).__name__}",
                    "it cannot be called on a batch of images",
                    "Pass a function or torch module taking (B, C, H, W) tensors in [0, 1]",
                )
        self.classifier, self.denoiser, self.sigma, self.device = classifier, denoiser, sigma, device
        self.precision = precision
        self.stochastic = bool(getattr(denoiser, "stochastic", False))
        self.settle()

    def settle(self) -> None:
        """Put every torch module into evaluation mode on the device, also one that was trained meanwhile."""
        try:
            for module in [*modules_of(self.classifier), *modules_of(self.denoiser)]:
                module.eval().to(self.device)
                if self.precision != "float32":
                    channels_last(module)
        except (RuntimeError, AssertionError) as error:
            why = str(error).splitlines()[0].rstrip(".")
            hint = "Write cpu, cuda or cuda:N for a device that exists"
            raise InvalidInput(f"device {self.device!r}", why, hint) from error

    def denoised(self, noisy: Tensor, draws: Draws | None) -> Tensor:
        """What the classifier sees: ``(B, C, H, W)``, checked to have the shape that went in."""
        if self.denoiser is None:
            return noisy
        clean = (
            self.denoiser(noisy, self.sigma, draws=draws)
            if self.stochastic
            else self.denoiser(noisy, self.sigma)
        )
        if not isinstance(clean, Tensor) or clean.shape != noisy.shape:
            raise ModelOutputError(
                f"a denoiser that returned {_kind(clean)} for images {tuple(noisy.shape)}",
                "a denoised batch has the shape of the noisy one",
                "Return a tensor of that shape with values in [0, 1]",
            )
        return clean

    @torch.inference_mode()
    def outputs(self, noisy: npt.NDArray[np.float32], draws: Draws | None = None) -> Tensor:
        """Raw scores ``(B, classes)`` or labels ``(B,)`` for a batch of noisy images."""
        mixed = torch.autocast(self.device.partition(":")[0], torch.bfloat16, self.precision != "float32")
        with mixed:
            clean = self.denoised(torch.from_numpy(noisy).to(self.device), draws)
            answer = self.classifier(clean)
        answer = answer if isinstance(answer, Tensor) else _as_tensor(answer)
        scores = answer.ndim == 2 and answer.shape[1] >= 2 and answer.is_floating_point()
        labels = answer.ndim == 1 and not answer.is_floating_point() and not answer.is_complex()
        if len(answer) != len(noisy) or not (scores or labels):
            raise ModelOutputError(
                f"a classifier that returned {_kind(answer)} for {len(noisy)} images",
                "it must return scores (B, classes) with at least two classes, or integer labels (B,)",
                "Wrap it in a function that does",
            )
        return _without_broken(answer, torch.isfinite(clean).flatten(1).all(dim=1))

    def labels(self, noisy: npt.NDArray[np.float32], draws: Draws | None = None) -> npt.NDArray[np.int64]:
        """The class of each row, ``NONFINITE`` where a score or denoised pixel is NaN or infinite."""
        return to_labels(self.outputs(noisy, draws))


def channels_last(module: Module) -> Module:
    """The same module with its weights laid out as fast convolutions want them."""
    moved: Any = module  # its `to` has no type for this
    moved.to(memory_format=torch.channels_last)
    return module


def to_labels(outputs: Tensor) -> npt.NDArray[np.int64]:
    """Scores to labels: the largest score, the first of equal ones; ``NONFINITE`` where one is not finite."""
    if outputs.ndim == 1:
        labels: npt.NDArray[np.int64] = outputs.cpu().numpy().astype(np.int64)
        return labels
    best = outputs.argmax(dim=1)
    best = torch.where(torch.isfinite(outputs).all(dim=1), best, NONFINITE)
    return best.cpu().numpy().astype(np.int64)


def pad(noisy: Sequence[npt.NDArray[np.float32]], batch: int) -> npt.NDArray[np.float32]:
    """Join draws to one batch of fixed size; missing rows repeat the last draw and are not counted."""
    joined = np.concatenate(noisy) if len(noisy) > 1 else noisy[0]
    short = batch - len(joined)
    return joined if short == 0 else np.concatenate([joined, np.repeat(joined[-1:], short, axis=0)])


def _without_broken(answer: Tensor, finite: Tensor) -> Tensor:
    """No class for rows whose denoised image is not finite, whatever the classifier made of them."""
    finite = finite.to(answer.device)
    if answer.ndim == 2:
        return torch.where(finite[:, None], answer, torch.nan)
    if bool((answer < 0).any()):
        raise ModelOutputError(
            f"a classifier that returned the label {int(answer.min())}",
            "labels count from 0",
            "Map it to 0, 1, ...",
        )
    return torch.where(finite, answer.long(), NONFINITE)


def _as_tensor(answer: Any) -> Tensor:
    try:
        return torch.as_tensor(np.asarray(answer))
    except (TypeError, ValueError) as error:
        raise ModelOutputError(
            f"a classifier that returned {type(answer).__name__}", "that is not an array", "Return a tensor"
        ) from error


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return type(value).__name__

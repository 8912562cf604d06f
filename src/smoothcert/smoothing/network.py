"""The base classifier of a certificate: denoise, classify, take the label. What a user plugs in is untrusted.

A batch goes in at one fixed shape and labels come out; every output is checked for type, shape and
finiteness on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smoothcert.backends.identity import modules_of as modules_of  # engine and training use it from here
from smoothcert.errors import InvalidInput, ModelOutputError, OutOfMemory, UnknownName
from smoothcert.protocols import Draws
from smoothcert.smoothing.allocator import keep_freed_memory
from smoothcert.smoothing.finite import finite_rows
from smoothcert.smoothing.lanes import Lanes, is_accelerator, memory_errors

NONFINITE = -1  # stands for "no class" between the network and the tally, nowhere else


Module = TypeVar("Module", bound=nn.Module)
Result = TypeVar("Result")

PRECISIONS = ("float32", "bf16-mixed", "fp16-mixed")
"""``bf16-mixed``, ``fp16-mixed``: convolutions and matrix products in bfloat16 or half precision (torch's
autocast), all else in float32. That is another base classifier, with a certificate of its own that is worth
as much. A score that overflows in half precision is no vote."""

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}


def default_batch(shape: tuple[int, ...], device: str = "cpu") -> int:
    """Draws in one batch: a fixed function of the image size, so that the same command names the same run.

    On a CPU 256 at 8x8, 32 at 3x32x32, 16 at 3x224x224 (larger batches are slower there); 8 times that on
    an accelerator.
    """
    fitting = max(1, 131_072 // int(np.prod(shape)))
    power: int = 2 ** (fitting.bit_length() - 1)
    return min(max(power, 16), 256) * (8 if is_accelerator(device) else 1)


@contextmanager
def intra_op_threads(threads: int) -> Iterator[None]:
    """Give each network call this many threads, and put back what was before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Network:
    """Denoiser and classifier as one function from noisy images to scores, in evaluation mode."""

    def __init__(
        self, classifier: Any, denoiser: Any | None, sigma: float, device: str, precision: str = "float32"
    ) -> None:
        _check_precision(precision, device)
        self._check_parts(classifier, denoiser)
        self.classifier, self.denoiser, self.sigma, self.device = classifier, denoiser, sigma, device
        self.precision = precision
        self.stochastic = bool(getattr(denoiser, "stochastic", False))
        self.lanes = Lanes(device)
        self.settle()

    @staticmethod
    def _check_parts(*parts: Any) -> None:
        for part in parts:
            if isinstance(part, type):
                raise InvalidInput(
                    f"a model that is the class {part.__name__}",
                    "calling it would build a model, not run one on images",
                    f"Pass an instance of it: {part.__name__}(...)",
                )
            if part is not None and not callable(part):
                raise InvalidInput(
                    f"a model of type {type(part).__name__}",
                    "it cannot be called on a batch of images",
                    "Pass a function or torch module taking (B, C, H, W) tensors in [0, 1]",
                )

    def parts(self) -> tuple[Any, ...]:
        """What it consists of."""
        return (self.classifier, self.denoiser)

    def settle(self) -> None:
        """Put every torch module into evaluation mode on the device, also one that was trained meanwhile."""
        try:
            for module in [module for part in self.parts() for module in modules_of(part)]:
                module.eval().to(self.device)
                if self.precision != "float32":
                    channels_last(module)
            self.lanes.settle()
        except torch.cuda.OutOfMemoryError as error:
            given, why = f"this model on {self.device}", "its weights do not fit into the memory that is free"
            raise OutOfMemory(given, why, "Free memory there, or choose another device") from error
        except (RuntimeError, AssertionError) as error:
            why = str(error).splitlines()[0].rstrip(".")
            hint = "Write cpu, cuda or cuda:N for a device that exists"
            raise InvalidInput(f"device {self.device!r}", why, hint) from error
        if not is_accelerator(self.device):
            keep_freed_memory()

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

    def outputs(self, noisy: npt.NDArray[np.float32], draws: Draws | None = None) -> Tensor:
        """Raw scores ``(B, classes)`` or labels ``(B,)`` for a batch of noisy images.

        A row whose denoised image is not finite has the scores NaN, or the label ``NONFINITE``.
        """
        return self._evaluated(noisy, draws, lambda answer: answer)

    def labels(self, noisy: npt.NDArray[np.float32], draws: Draws | None = None) -> npt.NDArray[np.int64]:
        """The class of each row, ``NONFINITE`` where a score or denoised pixel is NaN or infinite."""
        return self._evaluated(noisy, draws, to_labels)

    @torch.inference_mode()
    def _evaluated(
        self, noisy: npt.NDArray[np.float32], draws: Draws | None, end: Callable[[Tensor], Result]
    ) -> Result:
        """What ``end`` makes of the answers, from noise to answer without waiting for the device."""
        mixed = _AUTOCAST.get(self.precision)
        kind, alone = self.device.partition(":")[0], not is_accelerator(self.device)
        # Cast weights that autocast keeps are shared by threads, and a stream does not wait for another's.
        autocast = torch.autocast(kind, mixed or torch.bfloat16, mixed is not None, cache_enabled=alone)
        with memory_errors(self.device, len(noisy)):
            host = self.lanes.sendable(noisy)
            with self.lanes.lane():
                with autocast:
                    clean = self.denoised(self.lanes.sent(host), draws)
                    answer = self._answer(clean)
                return end(_without_broken(answer, finite_rows(clean)))

    def _answer(self, clean: Tensor) -> Tensor:
        """What is made of denoised images, checked."""
        return _usable(self.classifier(clean), len(clean))


def channels_last(module: Module) -> Module:
    """The same module with its weights laid out as fast convolutions want them."""
    moved: Any = module  # its `to` has no type for this
    moved.to(memory_format=torch.channels_last)
    return module


def to_labels(outputs: Tensor) -> npt.NDArray[np.int64]:
    """Scores to labels: the largest score, the first of equal ones; ``NONFINITE`` where one is not finite.

    The device is waited for once, when its labels are fetched.

    Raises:
        ModelOutputError: a label below 0 (and not ``NONFINITE``).
    """
    if outputs.ndim == 2:
        outputs = torch.where(finite_rows(outputs), outputs.argmax(dim=1), NONFINITE)
    labels: npt.NDArray[np.int64] = outputs.cpu().numpy().astype(np.int64, copy=False)
    if labels.min() < NONFINITE:
        raise ModelOutputError(
            f"a classifier that returned the label {labels.min() - NONFINITE}",
            "labels count from 0",
            "Map it to 0, 1, ...",
        )
    return labels


def pad(noisy: Sequence[npt.NDArray[np.float32]], batch: int) -> npt.NDArray[np.float32]:
    """Join draws to one batch of fixed size; missing rows repeat the last draw and are not counted."""
    joined = np.concatenate(noisy) if len(noisy) > 1 else noisy[0]
    short = batch - len(joined)
    return joined if short == 0 else np.concatenate([joined, np.repeat(joined[-1:], short, axis=0)])


def _without_broken(answer: Tensor, finite: Tensor) -> Tensor:
    """No class for rows whose denoised image is not finite, whatever the classifier made of them.

    Labels that a classifier may not return move down by one, to be told from ``NONFINITE`` later: looking at
    them here would wait for the device.
    """
    finite = finite.to(answer.device)
    if answer.ndim == 2:
        return torch.where(finite[:, None], answer, torch.nan)
    labels = answer.long()
    return torch.where(finite, torch.where(labels < 0, labels + NONFINITE, labels), NONFINITE)


def _usable(answer: Any, batch: int) -> Tensor:
    """A classifier's answer, if it is scores or labels for a batch."""
    found = answer if isinstance(answer, Tensor) else _as_tensor(answer)
    scores = found.ndim == 2 and found.shape[1] >= 2 and found.is_floating_point()
    labels = found.ndim == 1 and not found.is_floating_point() and not found.is_complex()
    if len(found) != batch or not (scores or labels):
        raise ModelOutputError(
            f"a classifier that returned {_kind(found)} for {batch} images",
            "it must return scores (B, classes) with at least two classes, or integer labels (B,)",
            "Wrap it in a function that does",
        )
    return found


def _check_precision(precision: str, device: str) -> None:
    if precision not in PRECISIONS:
        raise UnknownName.among("precision", precision, PRECISIONS)
    if precision == "fp16-mixed" and not is_accelerator(device):
        raise InvalidInput(
            f"precision {precision!r} on {device}",
            "processors compute in half precision many times slower than in single, if at all",
            "Write bf16-mixed, or choose an accelerator with device='cuda' (--device cuda)",
        )


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

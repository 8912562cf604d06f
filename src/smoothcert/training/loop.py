"""The one training loop: accelerate places the model, AdamW steps, the learning rate follows a cosine, and
the weights that are kept are an exponential average of those on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from smoothcert.errors import InvalidInput, MissingExtra
from smoothcert.training.savepoint import Course, Savepoint

Progress = Callable[[int, int, float], None]
"""Called after every step with steps done, steps in all, and the loss."""

_WARMUP_SHARE, _LARGEST_GRADIENT = 0.05, 1.0


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        directory: where the model, its configuration and its card are.
        steps: optimizer steps made.
        seconds: wall time of the loop.
        loss: mean training loss over the last tenth of the steps.
        figures: what was measured on held-out images, as in the card.
    """

    directory: Path
    steps: int
    seconds: float
    loss: float
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What the loop itself knows when it ends."""

    steps: int
    seconds: float
    loss: float
    threads: int


@contextmanager
def repeatable(seed: int, threads: int | None = None) -> Iterator[torch.Generator]:
    """A generator for data and noise; torch's own (initial weights, dropout) is set too and put back after.

    So is the number of threads, where given: it decides in which order floats are added.

    Raises:
        InvalidInput: a seed that torch's CPU generator would shorten, or no threads.
    """
    at_least(1, {"threads": 1 if threads is None else threads})
    if not 0 <= seed < 2**32:
        refuse("seed", seed, "torch keeps 32 bits of a seed: it is in 0..4294967295")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield torch.Generator().manual_seed(seed)
    finally:
        torch.set_num_threads(before)


def fit(
    model: nn.Module,
    loss_of: Callable[[nn.Module, torch.device, int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    average: float,
    device: str = "auto",
    precision: str = "no",
    savepoint: Savepoint | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Minimise a loss, then leave the averaged weights in ``model``, on the CPU and in eval mode.

    Args:
        model: trained in place.
        loss_of: draws the batch of a step, and gives the loss of a model on a device for it.
        steps: optimizer steps.
        learning_rate: the highest; reached after 5 % of the steps, then a cosine down to 0.
        weight_decay: of AdamW.
        average: decay of the exponential average of weights, in [0, 1); 0 keeps the last weights.
        device: ``auto`` takes an accelerator where there is one; ``cpu`` does not.
        precision: ``no`` for float32 throughout, ``bf16`` for mixed precision.
        savepoint: where the state is kept from time to time, and found again after an interruption.
        progress: told about every step.

    Raises:
        MissingExtra: accelerate is not installed.
        InvalidInput: settings that cannot train, or a loss that stops being finite.
        CheckpointError: a savepoint of another training.
    """
    _check(steps, learning_rate, average, device, precision)
    accelerator = _accelerator(device)
    average_of, optimizer, schedule = _optimization(model, steps, learning_rate, weight_decay, average)
    ready, optimizer, schedule = accelerator.prepare(model.train(), optimizer, schedule)
    average_of.to(accelerator.device)
    parts = {"model": ready, "optimizer": optimizer, "schedule": schedule, "average": average_of}
    course = savepoint.restore(parts) if savepoint else Course()
    started = time.perf_counter() - course.seconds
    for step in range(course.step, steps):
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(ready, accelerator.device, step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(ready.parameters(), _LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        average_of.step(ready.parameters())
        course.losses.append(_finite(float(loss.detach()), step, learning_rate))
        course.step, course.seconds = step + 1, time.perf_counter() - started
        if savepoint is not None:
            savepoint.keep(course, parts)
        if progress is not None:
            progress(step + 1, steps, course.losses[-1])
    average_of.copy_to(ready.parameters())
    model.to("cpu").eval()
    last = course.losses[-max(1, steps // 10) :]
    return Outcome(steps, course.seconds, sum(last) / len(last), torch.get_num_threads())


def _optimization(
    model: nn.Module, steps: int, learning_rate: float, weight_decay: float, average: float
) -> tuple[Any, Any, Any]:
    """The average of the weights, the optimizer and the learning rate's course."""
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.99)
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, max(1, round(_WARMUP_SHARE * steps)), steps)
    return EMAModel(model.parameters(), decay=average, use_ema_warmup=True, power=0.75), optimizer, schedule


def _accelerator(device: str) -> Any:
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingExtra.install("accelerate", "train", "training") from error
    accelerator = Accelerator(cpu=device == "cpu")
    if accelerator.num_processes > 1:
        found = f"{accelerator.num_processes} processes"
        why = "each would train on the same images and write the same files"
        raise InvalidInput(found, why, "Start the training as one process")
    return accelerator


def _check(steps: int, learning_rate: float, average: float, device: str, precision: str) -> None:
    at_least(1, {"steps": steps})
    positive({"learning_rate": learning_rate})
    if not 0 <= average < 1:
        refuse("average", average, "a decay is in [0, 1)")
    if device not in ("auto", "cpu"):
        refuse("device", device, "training runs on auto or cpu")
    if precision not in ("no", "bf16"):
        refuse("precision", precision, "it is 'no' (float32) or 'bf16' (mixed)")


def at_least(
    least: int, settings: Mapping[str, int], *, why: str = "", flags: Mapping[str, str] = {}
) -> None:
    """Refuse the first setting that is no whole number of ``least`` or more, by its name and its flag."""
    for name, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            refuse(name, value, why or f"it is a whole number, {least} or more", flags)


def positive(settings: Mapping[str, float], *, zero: bool = False, flags: Mapping[str, str] = {}) -> None:
    """Refuse the first setting that is not finite and positive (or 0, where ``zero``), likewise."""
    for name, value in settings.items():
        if not (0 <= value < math.inf if zero else 0 < value < math.inf):
            refuse(name, value, "it is a finite number, " + ("0 or more" if zero else "above 0"), flags)


def refuse(name: str, value: Any, why: str, flags: Mapping[str, str] = {}) -> NoReturn:
    """The error of one setting; ``flags`` are names on the command line."""
    flag = f" ({flags[name]})" if name in flags else ""
    raise InvalidInput(f"{name}={value}{flag}", why, "Leave it out to get its default")


def _finite(loss: float, step: int, learning_rate: float) -> float:
    if loss - loss != 0:  # NaN and infinity
        found = f"loss {loss} at step {step + 1}"
        raise InvalidInput(found, "training diverged", f"Lower the learning rate from {learning_rate}")
    return loss

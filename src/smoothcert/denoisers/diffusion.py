"""A diffusion model as a denoiser of images in [0, 1]: every scaling and timestep is hidden in here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.denoisers.takes import Takes
from smoothcert.diffusion.closed_form import EdmSchedule
from smoothcert.diffusion.preconditioning import EdmPreconditioning, Preconditioning, VariancePreserving
from smoothcert.diffusion.samplers import OneShot, Sampler
from smoothcert.diffusion.schedule import Schedule
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Draws

_ONE_SHOT = OneShot()
_MOST_CONDITIONS = 10_000  # as many as the longest sampler has steps


class DiffusionDenoiser:
    """D(noisy, sigma): a network with its schedule, its prediction type and a sampler.

    The noise that arrives is exactly N(0, sigma^2) on [0, 1], so exactly N(0, (2 sigma)^2) on the model's
    scale. The network sees (2 noisy - 1) / sqrt(1 + 4 sigma^2), or what its preconditioning makes of it, and
    the continuous time of 2 sigma; neither is rounded to a step of the schedule.

    Args:
        network: ``(x_t (B, C, H, W), times (B,)) -> (B, C, H, W)``, or an object with such a tensor in
            ``sample``; usually an ``nn.Module``.
        schedule: the noise schedule the network was trained on.
        prediction: ``epsilon``, ``x0`` or ``v``, or diffusers' name for it; or a whole ``Preconditioning``.
        sampler: how often the network is asked.
        clamp: confine estimates to images. Off only to check a linear model against theory.
        source: the name it was loaded by; not part of ``describe()``, as weights do not change by moving.
        takes: the images the network was built for; others are refused before it is asked.

    Raises:
        InvalidInput: EDM preconditioning with a schedule that is not EDM's.
    """

    def __init__(
        self,
        network: nn.Module | Callable[[Tensor, Tensor], object],
        schedule: Schedule,
        *,
        prediction: str | Preconditioning = "epsilon",
        sampler: Sampler = _ONE_SHOT,
        clamp: bool = True,
        source: str | None = None,
        takes: Takes | None = None,
    ) -> None:
        self.network = network
        self.schedule = schedule
        self.preconditioning = VariancePreserving(prediction) if isinstance(prediction, str) else prediction
        self.sampler = sampler
        self.clamp = clamp
        self.source = source
        self.takes = takes
        self._conditions: dict[float, float] = {}
        if isinstance(self.preconditioning, EdmPreconditioning) and not isinstance(schedule, EdmSchedule):
            why = "EDM's network is conditioned on ln(sigma)/4, not on a step of a table"
            raise InvalidInput(f"EDM preconditioning with schedule {schedule.name!r}", why, "Use EdmSchedule")

    @property
    def prediction(self) -> str:
        """``epsilon``, ``x0``, ``v`` or ``edm``."""
        return self.preconditioning.name

    @property
    def stochastic(self) -> bool:
        """Whether calls need ``draws``."""
        return self.sampler.stochastic

    def __call__(self, noisy: Tensor, sigma: float, /, *, draws: Draws | None = None) -> Tensor:
        """Estimate the clean images.

        Args:
            noisy: ``(B, C, H, W)`` floating point, a clean image in [0, 1] plus N(0, sigma^2).
            sigma: in units of [0, 1].
            draws: standard normal noise with names, for a stochastic sampler.

        Returns:
            ``(B, C, H, W)`` in [0, 1], NaN where the network was not finite.

        Raises:
            InvalidInput: a sigma outside the schedule, images of another shape or type, or missing draws.
            ModelOutputError: the network returned something else than an image.
        """
        if noisy.ndim != 4 or not noisy.is_floating_point():
            raise InvalidInput(
                f"images of shape {tuple(noisy.shape)} and type {noisy.dtype}",
                "a denoiser works on floating-point (B, C, H, W)",
                "Divide grey levels by their maximum and add a batch dimension",
            )
        if self.takes is not None:
            self.takes.check(noisy)
        clean = self.sampler(self._estimate, self.schedule, 2 * noisy - 1, 2 * sigma, draws)
        image = (clean + 1) / 2
        return image.clamp(0, 1) if self.clamp else image

    def evaluations(self, sigma: float) -> int:
        """How many times the network is asked for one batch at this sigma ([0, 1] units)."""
        return self.sampler.evaluations(self.schedule, 2 * sigma)

    def with_sampler(self, sampler: Sampler) -> DiffusionDenoiser:
        """The same model, asked in another way."""
        return DiffusionDenoiser(
            self.network,
            self.schedule,
            prediction=self.preconditioning,
            sampler=sampler,
            clamp=self.clamp,
            source=self.source,
            takes=self.takes,
        )

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        return {
            "kind": "diffusion",
            "schedule": self.schedule.describe(),
            **self.preconditioning.describe(),
            "sampler": self.sampler.describe(),
            "clamp": self.clamp,
        }

    def _estimate(self, z: Tensor, sigma: float) -> Tensor:
        shown = self.preconditioning.shown(z, sigma)
        time = self._condition(sigma)
        # A float tensor: UNet2DModel truncates a Python float to an integer. Never below single precision,
        # where a large time would be rounded to a multiple of 8.
        precision = torch.promote_types(z.dtype, torch.float32)
        times = torch.full((len(z),), time, dtype=precision, device=z.device)
        output = self.network(shown.to(self._network_dtype(z)), times)
        return self.preconditioning.clean(output, shown, sigma, clamp=self.clamp)

    def _condition(self, sigma: float) -> float:
        """What the network is told at this noise; solved once for each, not for every batch."""
        found = self._conditions.get(sigma)  # looked up once: another thread may clear them
        if found is None:
            if len(self._conditions) >= _MOST_CONDITIONS:
                self._conditions.clear()
            found = self._conditions[sigma] = self.schedule.condition(self.schedule.time_of(sigma))
        return found

    def _network_dtype(self, z: Tensor) -> torch.dtype:
        if isinstance(self.network, nn.Module):
            for parameter in self.network.parameters():
                if parameter.is_floating_point():
                    return parameter.dtype
        return z.dtype

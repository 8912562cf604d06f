"""Which time of a diffusion model has which noise: sigma <-> t.

A model of this kind sees x_t = sqrt(abar) x + sqrt(1 - abar) eps, with x in [-1, 1]. Divided by sqrt(abar)
this is x plus Gaussian noise of standard deviation sigma = sqrt((1 - abar) / abar), on the model's own scale:
twice the sigma of images in [0, 1]. Times are the model's integer indices 0 .. T-1 continued to real numbers;
abar at index i is what remains after i + 1 steps. Everything is float64; nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from smoothcert.diffusion.betas import FloatArray, betas
from smoothcert.errors import InvalidInput


class Schedule(ABC):
    """An increasing, invertible map from time to noise. Subclasses are final and frozen."""

    name: str
    timesteps: int

    @abstractmethod
    def _sigma(self, t: FloatArray, /) -> FloatArray:
        """sigma at times inside ``time_range``."""

    @abstractmethod
    def _time(self, sigma: float, /) -> float:
        """The time of a sigma inside [sigma_min, sigma_max]."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain data that names this schedule and no other, for a run's specification."""

    @property
    def time_range(self) -> tuple[float, float]:
        """First and last time that has a finite noise level."""
        return 0.0, float(self.timesteps - 1)

    @property
    def levels(self) -> FloatArray:
        """``(T,)`` sigma at the integer indices 0 .. T-1, increasing."""
        return self._sigma(np.arange(self.timesteps, dtype=np.float64))

    @property
    def sigma_min(self) -> float:
        """The least noise the model was trained on, on its own scale."""
        return float(self._sigma(np.array(self.time_range[0])))

    @property
    def sigma_max(self) -> float:
        """The largest finite noise level, on the model's own scale."""
        return float(self._sigma(np.array(self.time_range[1])))

    @overload
    def sigma_at(self, t: float) -> float: ...
    @overload
    def sigma_at(self, t: FloatArray) -> FloatArray: ...
    def sigma_at(self, t: float | FloatArray) -> float | FloatArray:
        """Noise on the model's own scale at a time, or at each of an array of times.

        Raises:
            InvalidInput: a time outside ``time_range``, or NaN.
        """
        times = np.asarray(t, dtype=np.float64)
        first, last = self.time_range
        if not np.all((times >= first) & (times <= last)):
            raise InvalidInput(
                f"t={t}", f"{self.name} has times {first:g} to {last:g}", "Choose a time in that range"
            )
        sigma = self._sigma(times)
        return sigma if times.ndim else float(sigma)

    @overload
    def alpha_bar(self, t: float) -> float: ...
    @overload
    def alpha_bar(self, t: FloatArray) -> FloatArray: ...
    def alpha_bar(self, t: float | FloatArray) -> float | FloatArray:
        """Share of the signal's variance that is left at a time: abar = 1 / (1 + sigma^2)."""
        return 1 / (1 + self.sigma_at(t) ** 2)

    def time_of(self, sigma: float) -> float:
        """The continuous time whose noise is ``sigma`` (model's own scale) to a relative error of 1e-12.

        Raises:
            InvalidInput: sigma outside [sigma_min, sigma_max]; the message gives the range in both units.
        """
        if not self.sigma_min <= sigma <= self.sigma_max:
            raise self._out_of_range(sigma)
        first, last = self.time_range  # rounding at an end must not leave the range
        return min(max(self._time(float(sigma)), first), last)

    def first_index_at_least(self, sigma: float) -> int:
        """The first integer index with at least this noise: the index of the published code of Carlini et al.

        Raises:
            InvalidInput: sigma is not positive, or above every level.
        """
        index = int(np.searchsorted(self.levels, sigma)) if sigma > 0 else self.timesteps
        if index >= self.timesteps:
            raise self._out_of_range(sigma)
        return index

    def condition(self, t: float) -> float:
        """The number that the network is conditioned on at time ``t``: ``t`` itself unless said otherwise."""
        return t

    def time_conditioned_on(self, condition: float) -> float:
        """The inverse of ``condition``."""
        return condition

    def descent(self, sigma: float, steps: int) -> FloatArray:
        """``(steps,)`` noise levels falling from ``sigma`` on, evenly spaced in time, noise 0 left out."""
        first, _ = self.time_range
        fractions = np.arange(steps) / steps
        levels = self._sigma(first + (self.time_of(sigma) - first) * (1 - fractions))
        levels[0] = sigma
        return levels

    def to_diffusers(self) -> dict[str, Any]:
        """The part of a diffusers ``scheduler_config.json`` that fixes this schedule.

        Raises:
            InvalidInput: diffusers' discrete schedulers cannot express it.
        """
        raise InvalidInput(
            f"schedule {self.name!r}",
            "diffusers' DDPMScheduler holds a finite table of betas and cannot express it",
            "Use a table schedule, such as beta_schedule('squaredcos_cap_v2', T) for the cosine",
        )

    @staticmethod
    def from_diffusers(config: Mapping[str, Any]) -> Schedule:
        """The schedule of a diffusers ``scheduler_config.json``; its prediction type is left to the caller.

        Raises:
            UnknownName: a ``beta_schedule`` nobody has heard of; the message lists those that exist.
            InvalidInput: zero terminal SNR, or betas that make no schedule.
        """
        if config.get("rescale_betas_zero_snr"):
            raise InvalidInput(
                "rescale_betas_zero_snr=true",
                "its last step has infinite noise, which no time-to-sigma table holds",
                "Give the rescaled table without its last entry to TableSchedule.from_alpha_bar",
            )
        if config.get("trained_betas") is not None:
            return TableSchedule.from_betas(config["trained_betas"])
        continuous = config.get("timestep_type") == "continuous"  # conditioned on ln(sigma)/4, not on t
        if continuous or ("_class_name" in config and "beta_schedule" not in config):
            raise InvalidInput(
                f"a scheduler of class {config.get('_class_name')}",
                "its times are not steps of a table of betas, so its noise levels mean something else",
                "Give the schedule yourself, with schedule=",
            )
        return beta_schedule(
            config.get("beta_schedule", "linear"),
            int(config.get("num_train_timesteps", 1000)),
            start=float(config.get("beta_start", 1e-4)),
            end=float(config.get("beta_end", 0.02)),
        )

    def _out_of_range(self, sigma: float) -> InvalidInput:
        low, high = self.sigma_min, self.sigma_max
        return InvalidInput(
            f"sigma={sigma:g} on the model's scale ({sigma / 2:g} for images in [0, 1])",
            f"{self.name!r} has {low:g} to {high:g} ({low / 2:g} to {high / 2:g} for images in [0, 1])",
            "Choose a sigma in that range, or a model trained on yours",
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash(repr(self.describe()))


@dataclass(frozen=True, eq=False)
class TableSchedule(Schedule):
    """A table of noise levels, one per index; between two indices log sigma (half the log-SNR) is linear.

    Build it with ``from_alpha_bar`` or ``from_betas``.

    Attributes:
        log_sigma: ``(T,)`` strictly increasing.
        name: what the schedule is called in messages.
        recipe: the diffusers configuration it came from; empty means that betas are listed one by one.
        time_scale: the network is told t * time_scale at step t; not 1 for some models of other than 1000
            steps.

    Raises:
        InvalidInput: levels that do not rise, or a time_scale that is not positive and finite.
    """

    log_sigma: FloatArray = field(repr=False)
    name: str = "table"
    recipe: Mapping[str, Any] = field(default_factory=dict, repr=False)
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        table = np.array(self.log_sigma, dtype=np.float64)
        if table.ndim != 1 or table.size < 2:
            raise InvalidInput(
                f"a table of shape {table.shape}",
                "a schedule is a list of two or more levels",
                "Give a flat list",
            )
        if not (np.isfinite(table).all() and (np.diff(table) > 0).all()):
            raise InvalidInput(
                f"table {self.name!r}",
                "its noise does not rise strictly at every index (or is zero, infinite or NaN somewhere)",
                "List alpha_bar strictly inside (0, 1), decreasing with the index",
            )
        if not 0 < self.time_scale < math.inf:
            given = f"time_scale={self.time_scale}"
            raise InvalidInput(given, "times keep their order and stay finite", "Write 1000 / timesteps")
        table.flags.writeable = False
        object.__setattr__(self, "log_sigma", table)

    @classmethod
    def from_alpha_bar(cls, alpha_bar: Sequence[float] | FloatArray, *, name: str = "table") -> TableSchedule:
        """From ``(T,)`` alpha_bar, decreasing, strictly inside (0, 1)."""
        table = np.asarray(alpha_bar, dtype=np.float64)
        with np.errstate(all="ignore"):  # a bad entry becomes NaN or infinite and is refused by name
            return cls((np.log1p(-table) - np.log(table)) / 2, name)

    @classmethod
    def from_betas(
        cls,
        values: Sequence[float] | FloatArray,
        *,
        name: str = "table",
        recipe: Mapping[str, Any] | None = None,
    ) -> TableSchedule:
        """From ``(T,)`` betas inside (0, 1); logarithms are summed, so that small noise keeps its digits."""
        with np.errstate(all="ignore"):
            log_alpha_bar = np.cumsum(np.log1p(-np.asarray(values, dtype=np.float64)))
            return cls((np.log(-np.expm1(log_alpha_bar)) - log_alpha_bar) / 2, name, recipe or {})

    @property
    def timesteps(self) -> int:  # type: ignore[override]
        return int(self.log_sigma.size)

    def _sigma(self, t: FloatArray, /) -> FloatArray:
        return np.asarray(np.exp(np.interp(t, np.arange(self.timesteps), self.log_sigma)))

    def _time(self, sigma: float, /) -> float:
        return float(np.interp(math.log(sigma), self.log_sigma, np.arange(self.timesteps)))

    def condition(self, t: float) -> float:
        return t * self.time_scale

    def time_conditioned_on(self, condition: float) -> float:
        return condition / self.time_scale

    def to_diffusers(self) -> dict[str, Any]:
        if self.time_scale != 1:
            why = "diffusers' schedulers tell a network the step itself"
            raise InvalidInput(
                f"time_scale={self.time_scale:g}", why, "Keep the checkpoint as it is published"
            )
        if self.recipe:
            return dict(self.recipe)
        log_alpha_bar = -np.logaddexp(0, 2 * self.log_sigma)
        listed = -np.expm1(np.diff(log_alpha_bar, prepend=0.0))
        return {"num_train_timesteps": self.timesteps, "trained_betas": listed.tolist()}

    def describe(self) -> dict[str, Any]:
        scale = {} if self.time_scale == 1 else {"time_scale": self.time_scale}
        if self.recipe:
            return {"kind": "table", **self.recipe, **scale}
        digest = hashlib.sha256(self.log_sigma.astype("<f8").tobytes()).hexdigest()
        return {"kind": "table", "num_train_timesteps": self.timesteps, "sha256": digest, **scale}


def beta_schedule(
    name: str, timesteps: int = 1000, *, start: float = 1e-4, end: float = 0.02
) -> TableSchedule:
    """The discrete schedule diffusers calls ``name``: linear, scaled_linear, sigmoid or squaredcos_cap_v2.

    Raises:
        UnknownName: another name; the message lists those that exist.
        InvalidInput: fewer than two steps, or betas outside (0, 1).
    """
    recipe = {"beta_schedule": name, "num_train_timesteps": timesteps, "beta_start": start, "beta_end": end}
    return TableSchedule.from_betas(betas(name, timesteps, start=start, end=end), name=name, recipe=recipe)

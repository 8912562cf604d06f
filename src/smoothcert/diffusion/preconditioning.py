"""What a network F is shown of a noisy image, and what denoised image its answer stands for.

z = x0 + sigma n is the noisy image on the model's scale, clean images in [-1, 1]. Networks are never shown z
itself but c_in(sigma) z, of about unit size at every noise level, and their answer is one term of the
estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from smoothcert.diffusion.prediction import canonical, clean_estimate, confined, mean_channels
from smoothcert.errors import InvalidInput


class Preconditioning(Protocol):
    """The two maps around a network. ``name`` is the prediction in a run's specification."""

    @property
    def name(self) -> str: ...
    def shown(self, z: Tensor, sigma: float) -> Tensor:
        """``(B, C, H, W)``: the network's input for noisy images z."""
        ...

    def clean(self, output: object, shown: Tensor, sigma: float, *, clamp: bool) -> Tensor:
        """``(B, C, H, W)``: the estimate of x0, from what the network was shown and what it answered."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        ...


@dataclass(frozen=True)
class VariancePreserving:
    """x_t = z / sqrt(1 + sigma^2), and the answer is the noise, the clean image, or v of both.

    Attributes:
        prediction: ``epsilon``, ``x0`` or ``v``, or diffusers' name for it.

    Raises:
        UnknownName: another prediction; the message lists those that exist.
    """

    prediction: str = "epsilon"

    def __post_init__(self) -> None:
        object.__setattr__(self, "prediction", canonical(self.prediction))

    @property
    def name(self) -> str:
        return self.prediction

    def shown(self, z: Tensor, sigma: float) -> Tensor:
        return z / math.sqrt(1 + sigma**2)

    def clean(self, output: object, shown: Tensor, sigma: float, *, clamp: bool) -> Tensor:
        return clean_estimate(output, shown, sigma, prediction=self.prediction, clamp=clamp)

    def describe(self) -> dict[str, Any]:
        return {"prediction": self.prediction}


@dataclass(frozen=True)
class EdmPreconditioning:
    """D(z; sigma) = c_skip z + c_out F(c_in z; ln(sigma)/4), Karras et al. 2022, table 1, right column.

    With s the noise and d = sigma_data: c_in = 1/sqrt(s^2 + d^2), c_skip = d^2/(s^2 + d^2), c_out = s d
    /sqrt(s^2 + d^2). The conditioning ln(sigma)/4 is ``EdmSchedule.condition``.

    Attributes:
        sigma_data: standard deviation of clean images on the model's scale.
        sign: of c_out; -1 for diffusers' EDM schedulers with ``prediction_type="v_prediction"``.

    Raises:
        InvalidInput: a sigma_data that is not positive and finite, or another sign than 1 and -1.
    """

    sigma_data: float = 0.5
    sign: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.sigma_data < math.inf and self.sign in (1, -1)):
            raise InvalidInput(
                f"sigma_data={self.sigma_data}, sign={self.sign}",
                "images have a positive, finite spread, and c_out a sign",
                "The published values are sigma_data=0.5, sign=1",
            )

    @property
    def name(self) -> str:
        return "edm"

    def shown(self, z: Tensor, sigma: float) -> Tensor:
        return z / math.hypot(sigma, self.sigma_data)

    def clean(self, output: object, shown: Tensor, sigma: float, *, clamp: bool) -> Tensor:
        total = math.hypot(sigma, self.sigma_data)
        # c_skip z = d^2/total^2 z, and what was shown is z/total.
        kept = self.sigma_data**2 / total * shown
        added = self.sign * sigma * self.sigma_data / total * mean_channels(output, shown)
        return confined(kept + added) if clamp else kept + added

    def describe(self) -> dict[str, Any]:
        return {"prediction": self.name, "sigma_data": self.sigma_data, "sign": self.sign}

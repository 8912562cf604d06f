"""The denoiser whose every answer is known: clean images drawn from N(mu, S).

With noise of standard deviation sigma the best estimate is E[x | noisy] = mu + S (S + sigma^2 I)^-1 (noisy -
mu), and the deterministic flow that samplers follow has a closed form too. Both test everything that
surrounds a real network. Units: images in [0, 1].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.diffusion.prediction import canonical
from smoothcert.diffusion.schedule import Schedule
from smoothcert.errors import InvalidInput


class GaussianDenoiser:
    """The exact posterior mean for clean images N(mean, covariance).

    Args:
        mean: ``(C, H, W)``.
        covariance: ``(D, D)`` with D = C H W, symmetric, no negative eigenvalue.
        clamp: confine answers to [0, 1]; off keeps the denoiser linear.

    Raises:
        InvalidInput: shapes that do not fit, or a matrix that is no covariance.
    """

    stochastic = False

    def __init__(self, mean: Tensor, covariance: Tensor, *, clamp: bool = True) -> None:
        pixels = mean.numel()
        if mean.ndim != 3 or covariance.shape != (pixels, pixels):
            raise InvalidInput(
                f"mean {tuple(mean.shape)}, covariance {tuple(covariance.shape)}",
                "they do not describe the same images",
                "Give (C, H, W) and (C*H*W, C*H*W)",
            )
        covariance = covariance.double()
        values, vectors = torch.linalg.eigh(covariance)
        if not torch.allclose(covariance, covariance.T) or not bool((values >= -1e-9 * values.max()).all()):
            raise InvalidInput("this covariance", "is not symmetric positive semidefinite", "Give A @ A.T")
        self.mean, self.clamp = mean.double(), clamp
        self._values, self._vectors = values.clamp(min=0), vectors

    def __call__(self, noisy: Tensor, sigma: float, /) -> Tensor:
        """E[x | noisy] for ``(B, C, H, W)``, in the images' own type."""
        clean = self.posterior_mean(noisy, torch.full((len(noisy),), sigma, dtype=torch.float64))
        return clean.clamp(0, 1) if self.clamp else clean

    def posterior_mean(self, noisy: Tensor, sigmas: Tensor) -> Tensor:
        """E[x | noisy], each of the ``(B, C, H, W)`` images with its own noise ``(B,)``; never clamped."""
        variances = sigmas.double()[:, None] ** 2
        return self._shrink(noisy, self._values / (self._values + variances))

    def flow(self, noisy: Tensor, sigma: float) -> Tensor:
        """Where the probability-flow ODE from ``noisy`` at ``sigma`` ends at noise 0, ``(B, C, H, W)``.

        Along an eigenvector with variance s the distance from the mean shrinks by sqrt(s / (s + sigma^2)).
        """
        return self._shrink(noisy, (self._values / (self._values + sigma**2)).sqrt())

    def posterior_covariance(self, sigma: float) -> Tensor:
        """``(D, D)`` Cov[x | noisy], the same for every noisy image."""
        return self._matrix(self._values * sigma**2 / (self._values + sigma**2))

    def network(self, schedule: Schedule, *, prediction: str = "epsilon") -> nn.Module:
        """The ideal diffusion network for these data: what training would converge to."""
        return _IdealNetwork(self, schedule, canonical(prediction))

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        return {
            "kind": "gaussian",
            "mean": self.mean.tolist(),
            "covariance": self._matrix(self._values).tolist(),
        }

    def _matrix(self, values: Tensor) -> Tensor:
        matrix: Tensor = self._vectors * values @ self._vectors.T
        return matrix

    def _shrink(self, noisy: Tensor, factors: Tensor) -> Tensor:
        offset = (noisy.double() - self.mean).flatten(1)
        shrunk: Tensor = (offset @ self._vectors * factors) @ self._vectors.T
        return (self.mean + shrunk.view(noisy.shape)).to(noisy.dtype)


class _IdealNetwork(nn.Module):
    def __init__(self, data: GaussianDenoiser, schedule: Schedule, prediction: str) -> None:
        super().__init__()
        self.data, self.schedule, self.prediction = data, schedule, prediction

    def forward(self, x_t: Tensor, times: Tensor) -> Tensor:
        """``(B, C, H, W)`` and ``(B,)`` continuous times, each image at its own."""
        sigmas = self._sigmas(times)
        sigma = sigmas[:, None, None, None]
        scale = (1 + sigma**2).sqrt()
        z = x_t.double() * scale
        clean = 2 * self.data.posterior_mean((z + 1) / 2, sigmas / 2) - 1
        noise = (z - clean) / sigma
        answers: dict[str, Tensor] = {"epsilon": noise, "x0": clean, "v": (noise - sigma * clean) / scale}
        return answers[self.prediction].to(x_t.dtype)

    def _sigmas(self, times: Tensor) -> Tensor:
        distinct, where = torch.unique(times, return_inverse=True)
        conditions = (float(t) for t in distinct)
        levels = [self.schedule.sigma_at(self.schedule.time_conditioned_on(c)) for c in conditions]
        return torch.tensor(levels, dtype=torch.float64)[where]

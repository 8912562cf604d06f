"""What a smoothed encoder's draws prove about one image's feature. Notation as in ``cosine``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smoothcert.certificates import cosine as bounds
from smoothcert.certificates.lattice import largest_ratio
from smoothcert.certificates.margin import Decision
from smoothcert.certificates.served import served
from smoothcert.errors import InvalidInput

Array = npt.NDArray[np.float64]
Number = float | Array

# Of alpha, what the covariance bound gets; m gets the rest. With features of mean length .6 to .98 and 1,000
# or 10,000 draws the covariance is what is known worst: at three quarters the certified cosine at ratios .25,
# .5 and 1 was the highest, ahead of one half by up to .004.
LAMBDA_SHARE = 0.75


@dataclass(frozen=True, eq=False)
class FeatureCertificate:
    """With probability at least 1 - alpha over the draws, every cosine that a method returns is a true bound.

    Three claims, each at level alpha by itself: about F (``cosine_lower``, ``radius``), about the clean
    feature (``reference_cosine_lower``), and the field's own (``paper_cosine_lower``). Radii are L2 on pixels
    in [0, 1]. Cosines are rounded down, radii to 1e-6 of sigma; 0 is an abstention.

    Attributes:
        feature: the mean of the draws, ``(k,)``, not normalised.
        m_lower: lower confidence bound on ||F(x)||, at level alpha (1 - LAMBDA_SHARE).
        covariance_upper: upper confidence bound on the top eigenvalue of Cov f, at alpha LAMBDA_SHARE.
        score_lower: lower bound on the Gaussian robustness score S. reference_lower: on <f(x), F(x)>.
        served: draws of which a served feature is the mean, ``None`` if no feature is served.
        noise_error: total variation distance of the drawn noise to the exact law; every claim holds for both.
        decisions: certificates of a head's answer, the one that counts first.
    """

    feature: Array | None
    m_lower: float
    covariance_upper: float
    score_lower: float
    reference_lower: float
    sigma: float
    alpha: float
    n0: int
    n: int
    served: int | None = None
    noise_error: float = 0.0
    decisions: tuple[Decision, ...] = ()

    def cosine_lower(self, radius: npt.ArrayLike) -> Number:
        """cos(F(x + delta), F(x)) >= the result for every ||delta|| <= radius: the ideal smoothed feature.

        The larger of the exact bound given m and the covariance bound. Source: THEORY 3.5.
        """
        return bounds.best(
            self.m_lower, self.covariance_upper, self._ratio(radius), noise_error=self.noise_error
        )

    def radius(self, cosine: npt.ArrayLike) -> Number:
        """The largest radius at which ``cosine_lower`` is at least ``cosine``; 0 if there is none."""
        tau = _numbers("cosine", cosine)
        ratio = bounds.ratio_for(tau, self.m_lower, self.covariance_upper, noise_error=self.noise_error)
        return self._radius(ratio)

    def served_cosine_lower(self, radius: npt.ArrayLike) -> Number:
        """The same for the means of ``served`` fresh draws at x and at x + delta: what is really given out.

        With probability at least 1 - alpha over those two means, beside the certificate's own level.
        Raises ``InvalidInput`` if ``served`` is ``None``. Source: THEORY 3.8.
        """
        if self.served is None:
            raise InvalidInput(
                "a certificate without a served feature",
                "the bound depends on how many draws the served mean has",
                "Certify with served=1000, say",
            )
        return served(
            self.cosine_lower(radius),
            self.m_lower,
            self.served,
            0.5 * self.alpha,
            self._ratio(radius),
            lam=self.covariance_upper,
            noise_error=self.noise_error,
        )

    def served_radius(self, cosine: npt.ArrayLike) -> Number:
        """The largest radius at which ``served_cosine_lower`` is at least ``cosine``; 0 if there is none."""
        tau = _numbers("cosine", cosine)
        bounds.check_cosine(tau)
        flat = tau.ravel()
        ratio = largest_ratio(
            lambda r: np.asarray(self.served_cosine_lower(self.sigma * r)) >= flat, len(flat)
        )
        return self._radius(ratio.reshape(tau.shape))

    def paper_cosine_lower(self, radius: npt.ArrayLike) -> Number:
        """The field's bound (FCSB) on cos(F(x + delta), F(x)), abstaining below 0. Source: THEORY 3.1."""
        ratio, off = self._ratio(radius), 2.0 * self.noise_error
        score = min(1.0, max(0.0, self.score_lower - self.noise_error))
        value = bounds.gaussian_score_bound(score, ratio)  # also a lower bound on both lengths
        return bounds.turned(value, (off, value), (off, value))

    def reference_cosine_lower(self, radius: npt.ArrayLike) -> Number:
        """cos(F(x + delta), f(x)) >= the result, f(x) the clean image's feature. THEORY 3.6."""
        ratio, off = self._ratio(radius), 2.0 * self.noise_error
        level = max(-1.0, self.reference_lower - off)
        return bounds.turned(bounds.to_reference(level, ratio), (off, bounds.repaired(level, ratio)))

    def _ratio(self, radius: npt.ArrayLike) -> Array:
        found = _numbers("radius", radius)
        if not bool((found >= 0.0).all()):
            raise InvalidInput(
                f"radius = {radius!r}",
                "a radius is an L2 distance on pixels in [0, 1], and no distance is negative or NaN",
                "Write for example radius=0.25",
            )
        return found / self.sigma * (1.0 + 4e-16)

    def _radius(self, ratio: npt.ArrayLike) -> Number:
        found = np.asarray(ratio, dtype=np.float64) * self.sigma * (1.0 - 1e-15)
        return float(found) if found.shape == () else found


def _numbers(name: str, value: npt.ArrayLike) -> Array:
    """One number or an array of them."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.asarray("no array")
    if array.dtype.kind not in "uif":
        raise InvalidInput(f"{name} = {value!r}", "it is no number", f"Write for example {name}=0.25")
    return array.astype(np.float64)

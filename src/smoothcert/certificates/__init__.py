"""From bounds to guarantees: one function, one numbered theorem. Imports bounds, tallies and errors."""

from smoothcert.certificates.gaussian import (
    Certificate,
    Prediction,
    certify,
    predict,
    radius_from_lower,
    radius_from_pair,
)

__all__ = ["Certificate", "Prediction", "certify", "predict", "radius_from_lower", "radius_from_pair"]

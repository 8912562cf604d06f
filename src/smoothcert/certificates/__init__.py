"""From bounds to guarantees: one function, one numbered theorem. Imports bounds, tallies and errors."""

from smoothcert.certificates.feature import FeatureCertificate
from smoothcert.certificates.gaussian import (
    Certificate,
    Prediction,
    certify,
    predict,
    radius_from_lower,
    radius_from_pair,
)
from smoothcert.certificates.margin import Decision, TestFunction

__all__ = [
    "Certificate",
    "Decision",
    "FeatureCertificate",
    "Prediction",
    "TestFunction",
    "certify",
    "predict",
    "radius_from_lower",
    "radius_from_pair",
]

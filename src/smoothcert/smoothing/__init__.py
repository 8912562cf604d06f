"""The only room that draws noise, and the smoothed models built on it.

May import denoisers, classifiers, datasets and all lower floors.
"""

from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder

__all__ = ["SmoothedClassifier", "SmoothedEncoder"]

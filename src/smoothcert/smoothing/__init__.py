"""The only room that draws noise, and the smoothed classifier built on it.

May import denoisers, classifiers, datasets and all lower floors.
"""

from smoothcert.smoothing.classifier import SmoothedClassifier

__all__ = ["SmoothedClassifier"]

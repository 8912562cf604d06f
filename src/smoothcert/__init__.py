"""smoothcert: provable L2 robustness for models people already have, by randomized smoothing."""

__version__ = "0.1.0"

"""Backends: the same classifier or denoiser, run by another library or in other numbers.

``convert`` turns a part into an equivalent one: half precision in torch, or a graph of fixed shape that
OpenVINO or ONNX Runtime runs, in 8-bit integers too. A converted network rounds differently, so it is another
base classifier; its certificates are its own and worth as much. May import classifiers, denoisers, protocols
and what is below; draws no noise. OpenVINO and ONNX Runtime are imported only where asked for.
"""

from __future__ import annotations

from smoothcert.backends.calibration import Calibration
from smoothcert.backends.convert import convert
from smoothcert.backends.names import NAMES, PLAIN, Backend, parse

__all__ = ["NAMES", "PLAIN", "Backend", "Calibration", "convert", "parse"]

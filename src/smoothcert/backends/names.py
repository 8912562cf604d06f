"""The names of backends: ``LIBRARY:NUMBERS``, with ``+OPTION`` where a library has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from smoothcert.errors import UnknownName

PLAIN = "torch"
NAMES: Mapping[str, str] = {
    PLAIN: "the network as it was loaded, in torch, float32",
    "torch:f32+onednn": "the same numbers with linear layers through oneDNN; for transformers on a CPU",
    "torch:f32+compile": "compiled by torch.compile (a minute, and a C++ compiler); float32",
    "torch:bf16": "weights and activations in bfloat16",
    "torch:bf16+compile": "bfloat16, compiled by torch.compile",
    "torch:f16": "weights and activations in float16; for accelerators",
    "torch:f16+compile": "float16, compiled by torch.compile",
    "openvino:f32": "OpenVINO on a CPU, float32",
    "openvino:bf16": "OpenVINO on a CPU that computes in bfloat16",
    "openvino:int8": "OpenVINO on a CPU, convolutions and products in 8-bit integers",
    "onnxruntime:f32": "ONNX Runtime on a CPU, float32",
    "onnxruntime:int8": "ONNX Runtime on a CPU, convolutions and products in 8-bit integers",
}
"""Every backend, with its meaning."""


@dataclass(frozen=True)
class Backend:
    """A backend taken apart.

    Attributes:
        name: as in ``NAMES``.
        library: ``torch``, ``openvino`` or ``onnxruntime``.
        numbers: ``f32``, ``bf16``, ``f16`` or ``int8``.
        option: ``onednn``, ``compile`` or nothing.
    """

    name: str
    library: str
    numbers: str
    option: str

    @property
    def is_graph(self) -> bool:
        """Whether the whole part becomes a graph of fixed shape that torch does not run."""
        return self.library != "torch"


def parse(name: str) -> Backend:
    """The backend called ``name``.

    Raises:
        UnknownName: there is none of that name; the message lists those that exist.
    """
    if name not in NAMES:
        raise UnknownName.among("backend", name, NAMES)
    library, _, rest = name.partition(":")
    numbers, _, option = rest.partition("+")
    return Backend(name, library, numbers or "f32", option)

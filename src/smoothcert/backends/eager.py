"""Backends of torch itself: half precision, oneDNN's linear layers, ``torch.compile``."""

from __future__ import annotations

import copy
import threading
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.backends.identity import modules_of, source_of, weights_of
from smoothcert.backends.names import Backend
from smoothcert.classifiers.pretrained import PretrainedClassifier
from smoothcert.denoisers.diffusion import DiffusionDenoiser
from smoothcert.denoisers.dncnn import ConvolutionalDenoiser
from smoothcert.errors import InvalidInput

_TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
_PREPARING = (PretrainedClassifier, DiffusionDenoiser, ConvolutionalDenoiser)
"""These bring images to their network's type themselves, after what needs float32."""


class EagerPart(nn.Module):
    """A copy of a part with other weights or layers; float32 in and out. A module, so that it moves as one.

    Raises:
        InvalidInput: a part without a torch network, float16 on a CPU.
    """

    def __init__(self, part: Any, backend: Backend) -> None:
        super().__init__()
        if not modules_of(part):
            raise InvalidInput(
                f"backend {backend.name} for {source_of(part)!r}",
                "it holds no torch module whose numbers could be others",
                "Give a part that is or keeps an nn.Module, or leave its backend out",
            )
        self.numbers, self._backend = _TYPES[backend.numbers], backend
        self._told = {**_described(part), "backend": backend.name, "original_sha256": weights_of(part)}
        self.source = source_of(part)
        for name in ("classes", "class_count"):
            if hasattr(part, name):
                setattr(self, name, getattr(part, name))
        self.stochastic = bool(getattr(part, "stochastic", False))
        self._casts = not isinstance(part, _PREPARING)
        self.part = _converted(copy.deepcopy(part), backend, self.numbers)
        self.networks = nn.ModuleList(modules_of(self.part) if not isinstance(self.part, nn.Module) else [])
        self._first, self._warm = threading.Lock(), set[tuple[Any, ...]]()
        self.eval()

    @property
    def backend(self) -> str:
        """Its name in ``backends.NAMES``."""
        return self._backend.name

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        return dict(self._told)

    def forward(self, images: Tensor, *sigma: float, **draws: Any) -> Tensor:
        """The part's answer, float32.

        Raises:
            InvalidInput: float16 on a CPU.
        """
        device = images.device.type
        if device == "cpu" and self.numbers == torch.float16:
            raise InvalidInput(
                f"backend {self.backend} on a CPU",
                "CPUs compute float16 many times slower than float32",
                "Write torch:bf16, or --device cuda",
            )
        shown = images.to(self.numbers) if self._casts else images
        with torch.autocast(device, enabled=False):  # its numbers are said by the backend and nothing else
            answer: Tensor = self._asked(shown, *sigma, **draws)
        return answer.float() if isinstance(answer, Tensor) and answer.is_floating_point() else answer

    def _asked(self, images: Tensor, *sigma: float, **draws: Any) -> Tensor:
        """The first call of each kind alone: ``torch.compile`` works then, and not in several threads."""
        kind = (
            tuple(images.shape),
            images.device,
            torch.get_num_threads(),
            torch.is_inference_mode_enabled(),
        )
        if self._backend.option != "compile" or kind in self._warm:
            return self._call(images, *sigma, **draws)
        with self._first:
            answer = self._call(images, *sigma, **draws)
            self._warm.add(kind)
        return answer

    def _call(self, images: Tensor, *sigma: float, **draws: Any) -> Tensor:
        answer: Tensor = self.part(images, *sigma, **draws)
        return answer

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_first": None, "_warm": set()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _first=threading.Lock())


class OneDnnLinear(nn.Module):
    """A linear layer in float32 by oneDNN, on many CPUs twice as fast as the default product."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, images: Tensor) -> Tensor:
        operator: Any = torch.ops.mkldnn._linear_pointwise
        product: Tensor = operator(images.contiguous(), self.weight, self.bias, "none", [], "")
        return product


def _described(part: Any) -> dict[str, Any]:
    told: dict[str, Any] = part.describe() if hasattr(part, "describe") else {}
    return told


def _converted(part: Any, backend: Backend, numbers: torch.dtype) -> Any:
    """The copy, changed in place."""
    for module in modules_of(part):
        module.eval()
        network: Any = module.network if isinstance(module, PretrainedClassifier) else module
        nn.Module.to(network, numbers)  # the loaders' own `to` warns of dtypes that nothing here needs
        if backend.option == "onednn":
            _use_onednn(network)
        elif numbers != torch.float32:
            network.to(memory_format=torch.channels_last)
    return _compiled(part) if backend.option == "compile" else part


def _use_onednn(module: nn.Module) -> None:
    available: Any = torch.backends.mkldnn.is_available
    if not available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        raise InvalidInput(
            "backend torch:f32+onednn", "this build of torch has no oneDNN", "Write torch, or openvino:f32"
        )
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, OneDnnLinear(child))
        else:
            _use_onednn(child)


def _compiled(part: Any) -> Any:
    """Networks compiled one by one, their weights folded in; what stands around them stays as it is."""
    if isinstance(part, PretrainedClassifier):
        part.network = _compile(part.network)
        return part
    if isinstance(part, nn.Module):
        return _compile(part)
    for name, value in list(vars(part).items()):
        if isinstance(value, nn.Module):
            setattr(part, name, _compile(value))
    return part


def _compile(network: nn.Module) -> Any:
    return torch.compile(network, dynamic=False, options={"freezing": True})

"""From a classifier or denoiser to an equivalent part in another backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.backends import onnxruntime, openvino, store
from smoothcert.backends.calibration import Calibration
from smoothcert.backends.eager import EagerPart
from smoothcert.backends.graph import Graph, example, split
from smoothcert.backends.identity import code_hash, files_hash, modules_of, plain_hash, source_of, weights_of
from smoothcert.backends.names import PLAIN, Backend, parse
from smoothcert.backends.parts import Answering, GraphClassifier, GraphDenoiser
from smoothcert.errors import InvalidInput, ModelOutputError, SmoothcertError

CONVERSION = 1  # raised when this room makes another model of the same part

_LIBRARIES: dict[str, ModuleType] = {"openvino": openvino, "onnxruntime": onnxruntime}
_TOLERANCE = 1e-3  # of the answers' size, in float32: rounding differs, the function does not


def convert(
    part: Any,
    backend: str,
    *,
    sigma: float | None = None,
    shape: tuple[int, int, int] | None = None,
    batch: int | None = None,
    calibration: Calibration | None = None,
    cache: str | Path | None = None,
) -> Any:
    """The same function in another backend, to be given to ``SmoothedClassifier`` in the part's place.

    Args:
        part: a classifier, or with ``sigma`` a denoiser.
        backend: a name in ``NAMES``; ``torch`` gives the part back as it is.
        sigma: the noise of a denoiser, which becomes part of a graph.
        shape, batch: of the images, ``(C, H, W)``, and of the run; for OpenVINO and ONNX Runtime.
        calibration: typical inputs, for ``int8`` (``smoothing.calibration`` makes them).
        cache: folder of converted models; without one each conversion is made afresh.

    Raises:
        UnknownName: no such backend. MissingExtra: its library is not installed.
        InvalidInput: a part that cannot be converted, or something that the backend needs and was not given.
        ModelOutputError: the converted part answers differently, which no rounding explains.
    """
    asked = parse(backend)
    if backend == PLAIN:
        return part
    if not asked.is_graph:
        return EagerPart(part, asked)
    _check_part(asked, part)
    if shape is None or batch is None:
        why = "a graph has one shape of images and one batch size"
        raise InvalidInput(f"backend {backend} for {source_of(part)!r}", why, "Pass shape= and batch=")
    return _Conversion(part, asked, sigma, shape, batch, calibration).made(Path(cache) if cache else None)


def _check_part(backend: Backend, part: Any) -> None:
    given = f"backend {backend.name} for {source_of(part)!r}"
    if getattr(part, "stochastic", False):
        why = "a graph has no place for the noise that this sampler draws"
        raise InvalidInput(given, why, "Take the one-shot, ddim or edm sampler, or a torch backend")
    if hasattr(part, "weights_sha256") or isinstance(part, EagerPart):
        why = "it is no torch network in float32: something else runs it already"
        raise InvalidInput(given, why, f"Leave its backend out, or write {PLAIN}")


@dataclass(frozen=True)
class _Conversion:
    """One part on its way to a graph; arguments as for ``convert``."""

    part: Any
    backend: Backend
    sigma: float | None
    shape: tuple[int, int, int]
    batch: int
    calibration: Calibration | None

    def made(self, cache: Path | None) -> GraphClassifier | GraphDenoiser:
        """The converted part, from the cache where it is there."""
        self._check_calibration()
        told = self.described(self.library.versions(self.backend.numbers))
        self.library.check(self.backend.numbers)
        files = self._files(told, cache if told["original_sha256"] else None)
        resize, _, _ = split(self.part, self.shape)
        answers = Answering(self.library.Runner(files, self.backend.numbers), resize)
        size = (self.batch, *self.shape)
        if self.sigma is None:
            return GraphClassifier(self.part, answers, size, told, files_hash(files))
        return GraphDenoiser(self.part, answers, size, told, files_hash(files), sigma=self.sigma)

    @property
    def library(self) -> Any:
        return _LIBRARIES[self.backend.library]

    def described(self, versions: dict[str, str]) -> dict[str, Any]:
        """The part's own words, and all that decides what the conversion makes of it."""
        part = self.part
        own = part.describe() if hasattr(part, "describe") else {}
        code = {} if modules_of(part) else {"code_sha256": code_hash(getattr(part, "function", part))}
        fixed: dict[str, Any] = {"shape": list(self.shape), "batch": self.batch}
        if self.sigma is not None:
            fixed["sigma"] = self.sigma
        if self.calibration is not None and self.backend.numbers == "int8":
            fixed["calibration"] = self.calibration.describe()
            fixed["beside"] = self.library.beside(self.backend.numbers)
        return {
            **own,
            **code,
            "backend": self.backend.name,
            "original_sha256": weights_of(part),
            "conversion": {"made_by": CONVERSION, "versions": versions, **fixed},
        }

    def _files(self, told: dict[str, Any], cache: Path | None) -> dict[str, bytes]:
        if cache is None:
            return self._built()
        machine = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
        key = plain_hash({**told, "machine": machine})
        files = store.read(cache, key)
        if files is None:
            files = self._built()
            store.write(cache, key, files)
        return files

    def _built(self) -> dict[str, bytes]:
        """Convert, and compare the graph in float32 with the part itself before its numbers get smaller."""
        resize, rest, shape = split(self.part, self.shape)
        # Other images than those it is traced with: what was taken for a constant shows.
        images = torch.from_numpy(example(self.batch, self.shape, offset=1_000_003))
        expected = self._asked(images)
        try:
            graph = Graph(rest, self.sigma)
            files: dict[str, bytes] = self.library.build(graph, example(self.batch, shape))
            plain = Answering(self.library.Runner(files, "f32"), resize)
            self._compare(plain(images), expected)
            if self.calibration is not None and self.backend.numbers == "int8":
                typical = self._typical(self.calibration)
                ordinary = self._finite(plain(typical[0]))
                shown = [(resize(batch) if resize else batch).numpy() for batch in typical]
                transformer = any(isinstance(module, nn.LayerNorm) for module in graph.modules())
                files = self.library.quantise(files, shown, transformer=transformer)
                small = Answering(self.library.Runner(files, "int8"), resize)
                self._compare_roughly(small(typical[0]), ordinary)
        except SmoothcertError:
            raise
        except Exception as error:  # whatever it is, the other library raised it
            lines = str(error).strip().splitlines() or ["no message"]
            why = f"it cannot be converted ({type(error).__name__}: {lines[-1][:200]})"
            raise InvalidInput(self._given, why, f"Write {PLAIN} or torch:bf16") from error
        return files

    def _asked(self, images: Tensor) -> Tensor:
        """The part's own answer."""
        for module in modules_of(self.part):
            module.eval()
        with torch.no_grad():
            answer = self.part(images) if self.sigma is None else self.part(images, self.sigma)
        if not isinstance(answer, Tensor) or not answer.is_floating_point():
            instead = f"Return scores, or write {PLAIN}"
            raise InvalidInput(self._given, "it returns labels, or no tensor", instead)
        return answer

    def _compare(self, found: Tensor, expected: Tensor) -> None:
        size = float(torch.nan_to_num(expected.abs(), 0.0, 0.0, 0.0).max()) or 1.0
        alike = found.shape == expected.shape and torch.allclose(
            found, expected, rtol=0.0, atol=_TOLERANCE * size, equal_nan=True
        )
        if not alike:
            why = "in float32 it answers differently from the original, so it is another function"
            instead = f"Look for control flow that depends on pixels, and for numpy inside; or write {PLAIN}"
            raise ModelOutputError(self._given, why, instead)

    def _finite(self, answers: Tensor) -> Tensor:
        if not bool(torch.isfinite(answers).all()):
            why = "it is not finite on the calibration images, and 8 bits would hide that"
            raise InvalidInput(self._given, why, f"Check the network, or write {PLAIN}")
        return answers

    def _compare_roughly(self, found: Tensor, expected: Tensor) -> None:
        """8 bits may cost accuracy, which ``tune`` measures; here only what is broken is refused."""
        allowed = max(float(expected.std(dim=0).mean()) / 2, float(expected.square().mean().sqrt()) / 4)
        error = float((found - expected).square().mean().sqrt())
        if not error <= allowed:
            why = f"its answers are off by {error:.2g} where {allowed:.2g} would be much"
            instead = "Write bf16 instead of int8, or give other calibration images"
            raise ModelOutputError(self._given, why, instead)

    def _check_calibration(self) -> None:
        if self.backend.numbers == "int8" and self.calibration is None:
            why = "8-bit scales are taken from typical inputs"
            instead = "Pass calibration= (smoothing.calibration makes it from a data set)"
            raise InvalidInput(f"{self._given} without calibration images", why, instead)

    def _typical(self, calibration: Calibration) -> list[Tensor]:
        """The calibration images in batches."""
        found = calibration.images.shape[1:]
        if found != tuple(self.shape):
            why = f"the images are {tuple(self.shape)}"
            raise InvalidInput(f"calibration images {found}", why, "Give images of that shape")
        return [torch.from_numpy(images) for images in calibration.batches(self.batch)]

    @property
    def _given(self) -> str:
        return f"backend {self.backend.name} for {source_of(self.part)!r}"

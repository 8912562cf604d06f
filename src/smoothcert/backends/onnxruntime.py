"""ONNX Runtime: graphs of fixed shape in float32 or 8-bit integers, on a CPU."""

from __future__ import annotations

import importlib.metadata
import io
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from smoothcert.backends.graph import Graph
from smoothcert.errors import MissingExtra

EXTRA = "onnx"
_MODEL, _INPUT = "model.onnx", "images"
_OPSET = 18


def versions(numbers: str) -> dict[str, str]:
    """What decides the bytes of a converted model and how it rounds.

    Raises:
        MissingExtra: a package that is not installed.
    """
    try:
        return {name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime")}
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra.install(str(error.name), EXTRA, f"backend onnxruntime:{numbers}") from error


def check(numbers: str) -> None:
    """Every CPU computes these numbers."""


def beside(numbers: str) -> str:
    """The numbers of what is not in 8 bits."""
    return "f32"


def build(graph: Graph, images: npt.NDArray[np.float32]) -> dict[str, bytes]:
    """The converted model as a file, the same bytes every time."""
    content = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of every size that it takes as fixed, which it is
        torch.onnx.export(
            graph,
            (torch.from_numpy(images),),
            content,  # type: ignore[arg-type]
            input_names=[_INPUT],
            output_names=["answer", "witness"],
            opset_version=_OPSET,
            dynamo=False,
        )
    return {_MODEL: content.getvalue()}


def quantise(
    files: Mapping[str, bytes], batches: Sequence[npt.NDArray[np.float32]], *, transformer: bool
) -> dict[str, bytes]:
    """Convolutions and products in 8 bits; scales from typical batches, one a channel for weights."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (Path(folder) / f"{name}.onnx" for name in ("plain", "ready", "small"))
        plain.write_bytes(files[_MODEL])
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        attention = _without_constants(ready)
        quantize_static(
            ready,
            small,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=attention,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return {_MODEL: small.read_bytes()}


def _without_constants(path: Path) -> list[str]:
    """Names of products of two computed matrices, as in attention: a softmax between two of them in 8 bits
    loses what the images were about."""
    import onnx

    graph = onnx.load(path).graph
    constant = {one.name for one in graph.initializer}
    constant |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    products = (node for node in graph.node if node.op_type == "MatMul")
    return [str(node.name) for node in products if not constant.intersection(node.input)]


class Runner:
    """A model in memory, run from any number of threads, each call on the threads that torch would use."""

    def __init__(self, files: Mapping[str, bytes], numbers: str) -> None:
        self._files = dict(files)
        self._start()

    def __call__(
        self, images: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Answer and witness of one batch."""
        answer, witness = self._session(torch.get_num_threads()).run(None, {_INPUT: images})
        return answer, witness

    def _session(self, threads: int) -> Any:
        with self._lock:
            if threads not in self._sessions:
                self._sessions[threads] = _open(self._files[_MODEL], threads)
            return self._sessions[threads]

    def _start(self) -> None:
        self._lock, self._sessions = threading.Lock(), dict[int, Any]()

    def __getstate__(self) -> dict[str, Any]:
        return {"_files": self._files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()


class _Reader:
    """Calibration batches as ONNX Runtime asks for them."""

    def __init__(self, batches: Sequence[npt.NDArray[np.float32]]) -> None:
        self._batches: Iterator[Any] = iter([{_INPUT: images} for images in batches])

    def get_next(self) -> Any:
        return next(self._batches, None)


def _open(content: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

"""OpenVINO: graphs of fixed shape in float32, bfloat16 or 8-bit integers, on a CPU.

Its packages count their users by calls over the network; here they are imported without that.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from smoothcert.backends.graph import Graph
from smoothcert.errors import InvalidInput, MissingExtra

EXTRA = "openvino"
_GRAPH, _WEIGHTS = "model.xml", "model.bin"
_IN_8_BITS = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}


def versions(numbers: str) -> dict[str, str]:
    """What decides the bytes of a converted model and how it rounds.

    Raises:
        MissingExtra: a package that is not installed.
    """
    names = ("openvino", "nncf") if numbers == "int8" else ("openvino",)
    try:
        return {name: importlib.metadata.version(name) for name in names}
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra.install(str(error.name), EXTRA, f"backend openvino:{numbers}") from error


def check(numbers: str) -> None:
    """Refuse bfloat16 on a CPU without it.

    Raises:
        InvalidInput: OpenVINO would silently compute in float32.
    """
    if numbers == "bf16" and "BF16" not in _library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InvalidInput(
            "backend openvino:bf16", "this CPU has no bfloat16", "Write openvino:f32 or openvino:int8"
        )


def beside(numbers: str) -> str:
    """The numbers of what is not in 8 bits: bfloat16 where the CPU has it, faster at little cost."""
    return "bf16" if numbers == "bf16" or (numbers == "int8" and _has_bfloat16()) else "f32"


def build(graph: Graph, images: npt.NDArray[np.float32]) -> dict[str, bytes]:
    """The converted model as files, the same bytes every time."""
    openvino = _library()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of every size that it takes as fixed, which it is
        shown = torch.from_numpy(images)
        # Frozen: what depends on weights alone, as the embedding of sigma, is computed now.
        trace: Any = torch.jit.trace  # untyped
        frozen = torch.jit.freeze(trace(graph, shown, check_trace=False))
        model = openvino.convert_model(frozen, example_input=shown, input=[tuple(images.shape)])
    return _files(openvino, model)


def quantise(
    files: Mapping[str, bytes], batches: Sequence[npt.NDArray[np.float32]], *, transformer: bool
) -> dict[str, bytes]:
    """Convolutions and products in 8 bits; scales from typical batches, one a channel for weights.

    Nothing else: sums and means in 8 bits cost twice the error, save little, and lose what is not finite.
    """
    openvino, nncf = _library(), _nncf()
    model = openvino.Core().read_model(model=files[_GRAPH], weights=files[_WEIGHTS])
    others = {node.get_type_name() for node in model.get_ops()} - _IN_8_BITS
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        quantised = nncf.quantize(
            model,
            nncf.Dataset(list(batches)),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            ignored_scope=nncf.IgnoredScope(types=sorted(others), validate=False),
        )
    return _files(openvino, quantised)


class Runner:
    """A model in memory, run from any number of threads, each call on the threads that torch would use.

    Each thread asks by a request of its own, and each request computes on as many threads whatever runs
    beside it, so an answer is a function of the batch.
    """

    def __init__(self, files: Mapping[str, bytes], numbers: str) -> None:
        self._files, self._numbers = dict(files), numbers
        self._start()

    def __call__(
        self, images: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Answer and witness of one batch."""
        found = self._request(torch.get_num_threads()).infer([images])
        return found[0].copy(), found[1].copy()

    def _request(self, threads: int) -> Any:
        requests: dict[int, Any] = self._local.__dict__.setdefault("requests", {})
        if threads not in requests:
            requests[threads] = self._compiled(threads).create_infer_request()
        return requests[threads]

    def _compiled(self, threads: int) -> Any:
        with self._lock:
            if threads not in self._models:
                self._models[threads] = _compile(self._files, self._numbers, threads)
            return self._models[threads]

    def _start(self) -> None:
        self._lock, self._local, self._models = threading.Lock(), threading.local(), dict[int, Any]()

    def __getstate__(self) -> dict[str, Any]:
        return {"_files": self._files, "_numbers": self._numbers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()


def _compile(files: Mapping[str, bytes], numbers: str, threads: int) -> Any:
    """Compiled with one stream for every call that can run at a time, and ``threads`` threads for each."""
    core = _library().Core()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    streams = max(1, cores // threads)
    model = core.read_model(model=files[_GRAPH], weights=files[_WEIGHTS])
    return core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": beside(numbers),
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "ENABLE_CPU_PINNING": False,  # others use these cores too
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # scales are fixed, not taken from the batch
        },
    )


def _files(openvino: Any, model: Any) -> dict[str, bytes]:
    """Serialised, with names by position: those given on the way count all that was made in this process."""
    model.set_friendly_name("smoothcert")
    for place, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{place}_{node.get_type_name()}")
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(model, Path(folder) / _GRAPH, compress_to_fp16=False)
        return {name: (Path(folder) / name).read_bytes() for name in (_GRAPH, _WEIGHTS)}


def _has_bfloat16() -> bool:
    return "BF16" in _library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _library() -> Any:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it now fails
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra.install("openvino", EXTRA, "backend openvino") from error
    return openvino


def _nncf() -> Any:
    _library()
    try:
        import nncf
    except ImportError as error:
        raise MissingExtra.install("nncf", EXTRA, "backend openvino:int8") from error
    import logging

    nncf.set_log_level(logging.ERROR)
    return nncf

"""Exported networks: ``onnx:PATH``, run by ONNX Runtime on the CPU or a CUDA device.

A graph does not say how its images were normalised: the name's options do, or the file's own metadata
(``mean``, ``std``, ``classes`` and the other options, under their names). What runs is known by SHA-256, the
files of external weights included.
"""

from __future__ import annotations

import hashlib
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.checkpoints import sha256
from smoothcert.classifiers.callable import checked
from smoothcert.errors import CheckpointError, InvalidInput, MissingExtra
from smoothcert.networks import options as opt
from smoothcert.networks.preprocessing import Preprocessing

PREFIX = "onnx:"
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_EXTERNAL = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])", re.DOTALL)


class OnnxClassifier:
    """Images ``(B, C, H, W)`` in [0, 1] -> scores ``(B, classes)`` of an ONNX graph.

    It computes with as many threads as torch does (a run's ``threads``), so that a draw's answer does not
    depend on the machine's load; any number of calls may be made at a time.

    Args:
        path: the ``.onnx`` file; external weights lie in the same folder.
        preprocessing: what the network was trained with.
        classes: names of the scores.
    """

    def __init__(
        self, path: str | Path, preprocessing: Preprocessing, *, classes: tuple[str, ...] | None = None
    ) -> None:
        self.path, self.preprocessing, self.source = Path(path), preprocessing, f"{PREFIX}{path}"
        self.weights_sha256: str | None = _hash(self.path)
        self._lock, self._sessions = threading.Lock(), dict[tuple[int, str], Any]()
        graph = self._session(1, "cpu")
        entry, _ = _ends(graph, self.path)
        self._input, self._type, self.batch = entry.name, _TYPES[entry.type], _fixed(entry.shape[0])
        self.class_count, self.classes = self._count(), classes
        if classes is not None and len(classes) != self.class_count:
            found = f"{len(classes)} class names for a graph of {self.class_count} scores"
            raise InvalidInput(found, "every score needs one name", "Give one name each, in their order")

    def __call__(self, images: Tensor, /) -> Tensor:
        """Scores for a batch, on the device of the images.

        Raises:
            InvalidInput: images, or a batch size, that the graph does not take.
            ModelOutputError: an answer that is no table of scores.
        """
        if self.batch not in (None, len(images)):
            why = f"the graph of {self.path.name} takes exactly {self.batch} at a time"
            instead = f"Write --batch {self.batch} (batch={self.batch}), or export it with a dynamic batch"
            raise InvalidInput(f"a batch of {len(images)} images", why, instead)
        prepared = self.preprocessing(images).detach().cpu().numpy().astype(self._type)
        session = self._session(torch.get_num_threads(), images.device.type)
        scores = session.run(None, {self._input: np.ascontiguousarray(prepared)})[0]
        return checked(torch.from_numpy(scores).to(images.device), len(images), self.source)

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification, with the version that runs the graph."""
        return {
            "kind": "onnx",
            "runtime": _runtime().__version__,
            "class_count": self.class_count,
            "preprocessing": self.preprocessing.describe(),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_sessions")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _sessions={})

    def _session(self, threads: int, device: str) -> Any:
        """One session for each number of threads and device, made when first needed."""
        with self._lock:
            if (threads, device) not in self._sessions:
                self._sessions[threads, device] = _open(self.path, threads, device)
            return self._sessions[threads, device]

    def _count(self) -> int:
        """The number of scores: as the graph says, else from one blank batch."""
        shape = _ends(self._session(1, "cpu"), self.path)[1].shape
        count = _fixed(shape[1]) if len(shape) == 2 else None
        if count is None:
            side = self.preprocessing.expects or (32, 32)
            blank = torch.zeros(self.batch or 2, self.preprocessing.channels, *side)
            count = self(blank).shape[-1]
        return count


def load(name: str) -> OnnxClassifier:
    """Read ``onnx:PATH?options``.

    Raises:
        MissingExtra: onnxruntime is not installed.
        CheckpointError: no such file, or a graph that is no image classifier (one float input NCHW, scores
            first among its outputs). InvalidInput: nothing says how images were normalised.
    """
    bare, options = opt.split(name)
    path = Path(bare.removeprefix(PREFIX))
    session = _open(path, 1, "cpu")
    entry, _ = _ends(session, path)
    stored = {k: v for k, v in session.get_modelmeta().custom_metadata_map.items() if k in opt.COMMON}
    if "mean" in options:
        stored.pop("mean", None), stored.pop("std", None)
    told = {**stored, **options}
    if "mean" not in told:
        why = "a graph does not say how images were normalised, and a guess would certify another model"
        instead = f"Write '{bare}?mean=0.485,0.456,0.406&std=0.229,0.224,0.225' (mean=0&std=1 for none)"
        raise InvalidInput(f"classifier {bare!r}", why, instead)
    height, width = (_fixed(side) for side in entry.shape[2:])
    base = Preprocessing(
        channels=_fixed(entry.shape[1]) or 3,
        expects=(height, width) if height is not None and width is not None else None,
    )
    return OnnxClassifier(path, opt.preprocessing(told, base), classes=opt.classes(told))


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra.install("onnxruntime", "onnx", "an ONNX classifier") from error
    return onnxruntime


def _open(path: Path, threads: int, device: str) -> Any:
    runtime = _runtime()
    if not path.is_file():
        raise _unusable(path, "there is no such file", "Check the path")
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.use_deterministic_compute, settings.log_severity_level = True, 3
    wanted = ["CUDAExecutionProvider"] if device == "cuda" else []
    providers = [name for name in wanted if name in runtime.get_available_providers()]
    try:
        return runtime.InferenceSession(str(path), settings, providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # the runtime has an exception type for each way a graph can be wrong
        lines = str(error).strip().splitlines() or [type(error).__name__]
        why = f"ONNX Runtime cannot open it ({lines[0].rstrip('.')})"
        raise _unusable(path, why, "Export it again") from error


def _ends(session: Any, path: Path) -> tuple[Any, Any]:
    """The input and the scores of a graph that classifies images."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type not in _TYPES or len(inputs[0].shape) != 4:
        found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        why = f"its inputs are {found or 'none'}, not one float batch of images (B, C, H, W)"
        raise _unusable(path, why, "Export the classifier alone")
    if _fixed(inputs[0].shape[1]) not in (None, 1, 3, 4) and _fixed(inputs[0].shape[3]) in (1, 3, 4):
        why = f"its input {inputs[0].shape} has the channels last (B, H, W, C)"
        raise _unusable(path, why, "Export it with (B, C, H, W)")
    if outputs[0].type not in _TYPES:
        why = f"its first output {outputs[0].name} is {outputs[0].type}, not scores"
        raise _unusable(path, why, "Export the scores (B, classes) as first output")
    return inputs[0], outputs[0]


def _fixed(length: Any) -> int | None:
    """A length that the graph fixes; names and nothing stand for any."""
    return length if isinstance(length, int) and length > 0 else None


def _hash(path: Path) -> str:
    """SHA-256 of the file; with external weights, of the list of all files' hashes."""
    content = path.read_bytes()
    names = sorted({_location(content, found) for found in _EXTERNAL.finditer(content)})
    if not names:
        return hashlib.sha256(content).hexdigest()
    lines = [f"{hashlib.sha256(content).hexdigest()}  {path.name}"]
    lines += [f"{sha256(path.parent / name)}  {name}" for name in names]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _location(content: bytes, found: re.Match[bytes]) -> str:
    """The name of a file of external weights, as the graph spells it."""
    return content[found.end() : found.end() + found[1][0]].decode(errors="replace")


def _unusable(path: Path, why: str, instead: str) -> CheckpointError:
    return CheckpointError(f"classifier '{PREFIX}{path}'", why, instead)

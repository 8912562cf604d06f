"""ONNX graphs: the real CIFAR ResNet-20 as a graph gives torch's answers; what a graph must be."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.realdata import DATA, needs
from torch import Tensor

from smoothcert.classifiers import OnnxClassifier, load
from smoothcert.engine.specify import component
from smoothcert.errors import CheckpointError, InvalidInput, MissingExtra, UnsoundModel
from smoothcert.smoothing import SmoothedClassifier

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

TOLD = "?mean=0.485,0.456,0.406&std=0.229,0.224,0.225"
WEIGHTS, EVERY_20TH = "weights/cifar10_resnet20.npz", "cifar10/cifar10_test_every20.npz"


class Graph:
    """Nodes of a residual network, in the order they are added."""

    def __init__(self, state: dict[str, np.ndarray[Any, Any]]) -> None:
        self.state, self.nodes, self.count = state, [], 0
        self.constants = {name: array for name, array in state.items() if "tracked" not in name}

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.count += 1
        self.nodes.append(helper.make_node(kind, list(inputs), [f"v{self.count}"], **attributes))
        return f"v{self.count}"

    def convolution(self, x: str, name: str, bn: str, stride: int = 1) -> str:
        x = self.add("Conv", x, f"{name}.weight", pads=[1] * 4, strides=[stride] * 2)
        parts = ("weight", "bias", "running_mean", "running_var")
        return self.add("BatchNormalization", x, *(f"{bn}.{part}" for part in parts), epsilon=1e-5)

    def block(self, x: str, name: str, stride: int, added: int) -> str:
        y = self.add("Relu", self.convolution(x, f"{name}.conv1", f"{name}.bn1", stride))
        y = self.convolution(y, f"{name}.conv2", f"{name}.bn2")
        if stride > 1:
            for key, values in {"a": [0, 0], "b": [2**31, 2**31], "c": [2, 3], "d": [2, 2]}.items():
                self.constants[key] = np.array(values, dtype=np.int64)
            x = self.add("Slice", x, "a", "b", "c", "d")
            self.constants[f"pad{added}"] = np.array([0, added // 2, 0, 0] * 2, dtype=np.int64)
            x = self.add("Pad", x, f"pad{added}")
        return self.add("Relu", self.add("Add", x, y))


def resnet20(path: Path, batch: int | str = "batch", **metadata: str) -> None:
    graph = Graph(dict(np.load(DATA / WEIGHTS)))
    x = graph.add("Relu", graph.convolution("images", "conv1", "bn1"))
    for stage, channels in ((1, 16), (2, 32), (3, 64)):
        for k in range(3):
            first = stage > 1 and k == 0
            x = graph.block(x, f"layer{stage}.{k}", 2 if first else 1, channels // 2 if first else 0)
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.add("Gemm", x, "linear.weight", "linear.bias", transB=1)
    write(path, graph.nodes, graph.constants, [batch, 3, 32, 32], [batch, 10], metadata)


def write(
    path: Path,
    nodes: list[Any],
    constants: dict[str, Any],
    shape: list[int | str],
    scores: list[int | str],
    metadata: dict[str, str] | None = None,
    type_in: int = TensorProto.FLOAT,
    type_out: int = TensorProto.FLOAT,
) -> None:
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("images", type_in, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], type_out, scores)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)


def small(path: Path, batch: int | str = "batch", **metadata: str) -> None:
    """Scores are the channels' means."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("Flatten", ["means"], ["scores"]),
    ]
    write(path, nodes, {}, [batch, 3, "height", "width"], [batch, 3], metadata)


def cifar() -> Tensor:
    return torch.from_numpy(np.load(DATA / EVERY_20TH)["images"]).float() / 255


@needs(WEIGHTS, EVERY_20TH)
def test_a_real_network_gives_the_labels_that_torch_gives(tmp_path: Path) -> None:
    resnet20(tmp_path / "net.onnx")
    found, torchs = load(f"onnx:{tmp_path / 'net.onnx'}{TOLD}"), load(f"resnet20:{DATA / WEIGHTS}{TOLD}")
    images = cifar()[:200]
    images = images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = torch.cat([found(part) for part in images.split(50)])
        expected = torch.cat([torchs(part) for part in images.split(50)])
    assert torch.equal(ours.argmax(1), expected.argmax(1))
    assert torch.allclose(ours, expected, atol=1e-3)


@needs(WEIGHTS, EVERY_20TH)
def test_it_is_certified_like_any_other(tmp_path: Path) -> None:
    resnet20(tmp_path / "net.onnx", 32)
    smoothed = SmoothedClassifier(load(f"onnx:{tmp_path / 'net.onnx'}{TOLD}"), 0.05)
    image = np.load(DATA / EVERY_20TH)["images"][0]
    assert smoothed.certify(image, n0=10, n=50, batch=32).label is not None
    with pytest.raises(InvalidInput, match="--batch 32"):
        smoothed.certify(image, n0=10, n=50, batch=16)


def test_what_runs_is_known_by_its_hash(tmp_path: Path) -> None:
    small(tmp_path / "a.onnx", mean="0", std="1")
    small(tmp_path / "b.onnx", mean="0", std="1", note="another file")
    first, second = (component(load(f"onnx:{tmp_path / name}")) for name in ("a.onnx", "b.onnx"))
    import hashlib

    assert first.sha256 == hashlib.sha256((tmp_path / "a.onnx").read_bytes()).hexdigest()
    assert first.sha256 != second.sha256
    assert "code_sha256" not in first.settings


def test_external_weights_belong_to_the_hash(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
    ]
    weight = np.arange(3 * 1000, dtype=np.float32).reshape(3, 1000)
    write(tmp_path / "one.onnx", nodes, {"weight": weight}, ["b", 3, 8, 8], ["b", 1000])
    model = onnx.load(tmp_path / "one.onnx")
    onnx.save(
        model, tmp_path / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    before = load(f"onnx:{tmp_path / 'net.onnx'}?mean=0&std=1")
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    content[5] ^= 1
    (tmp_path / "weights.bin").write_bytes(content)
    after = load(f"onnx:{tmp_path / 'net.onnx'}?mean=0&std=1")
    assert isinstance(before, OnnxClassifier)
    assert isinstance(after, OnnxClassifier)
    assert before.weights_sha256 != after.weights_sha256


def test_preprocessing_is_told_or_stored_and_never_guessed(tmp_path: Path) -> None:
    small(tmp_path / "bare.onnx")
    with pytest.raises(InvalidInput, match=r"\?mean=0\.485"):
        load(f"onnx:{tmp_path / 'bare.onnx'}")
    told = load(f"onnx:{tmp_path / 'bare.onnx'}?mean=0.5,0.25,0&std=0.5,1,2&classes=a,b,c&size=8")
    small(tmp_path / "knows.onnx", mean="0.5,0.25,0", std="0.5,1,2", classes="a,b,c", size="8")
    stored = load(f"onnx:{tmp_path / 'knows.onnx'}")
    images = torch.rand(4, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    assert torch.equal(told(images), stored(images))
    assert isinstance(stored, OnnxClassifier)
    assert stored.classes == ("a", "b", "c")
    means = told.preprocessing(images).mean(dim=(2, 3))  # type: ignore[attr-defined]
    assert torch.allclose(told(images), means, atol=1e-6)


def test_a_session_has_the_threads_that_torch_has(tmp_path: Path) -> None:
    small(tmp_path / "net.onnx", mean="0", std="1")
    classifier = load(f"onnx:{tmp_path / 'net.onnx'}")
    assert isinstance(classifier, OnnxClassifier)
    classifier(torch.zeros(2, 3, 8, 8))
    sessions = classifier._sessions
    options = [session.get_session_options() for session in sessions.values()]
    assert [one.intra_op_num_threads for one in options][-1] == torch.get_num_threads()
    again = pickle.loads(pickle.dumps(classifier))
    assert torch.equal(again(torch.ones(2, 3, 8, 8)), classifier(torch.ones(2, 3, 8, 8)))


def identity(path: Path, shape: list[int | str], **types: int) -> None:
    nodes = [helper.make_node("Identity", ["images"], ["scores"])]
    write(path, nodes, {}, shape, shape, **types)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "types", "message"),
    [
        (["b", 32, 32, 3], {}, "channels last"),
        (["b", 3], {}, "not one float batch"),
        (
            ["b", 3, 8, 8],
            {"type_in": TensorProto.UINT8, "type_out": TensorProto.UINT8},
            "not one float batch",
        ),
    ],
)
def test_graphs_that_classify_no_images_are_refused(
    tmp_path: Path, shape: list[int | str], types: dict[str, int], message: str
) -> None:
    identity(tmp_path / "net.onnx", shape, **types)
    with pytest.raises(CheckpointError, match=message):
        load(f"onnx:{tmp_path / 'net.onnx'}?mean=0&std=1")


@pytest.mark.parametrize("content", [None, b"", b"\x00garbage"])
def test_files_that_are_no_graph_are_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.onnx"):
        load(f"onnx:{tmp_path / 'net.onnx'}?mean=0&std=1")


def test_a_graph_that_mixes_its_batch_is_found_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["batch_mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["flat", "batch_mean"], ["scores"]),
    ]
    write(tmp_path / "net.onnx", nodes, {}, ["b", 3, 8, 8], ["b", 3])
    smoothed = SmoothedClassifier(load(f"onnx:{tmp_path / 'net.onnx'}?mean=0&std=1"), 0.25)
    with pytest.raises(UnsoundModel, match="other images of its batch"):
        smoothed.certify(np.full((3, 8, 8), 100, np.uint8), n0=10, n=50)


def test_without_the_runtime_the_install_line_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"smoothcert\[onnx\]"):
        load(f"onnx:{tmp_path / 'net.onnx'}?mean=0&std=1")

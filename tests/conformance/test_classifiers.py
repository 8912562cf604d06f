"""What every classifier must do, whatever it is made of: one suite that each kind passes.

Images have seven neighbours in a batch of fixed shape, as in the engine. Kinds whose library is absent are
skipped (timm and torchvision: ``tests/timm_environment.sh``).
"""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.torchvision_operators import import_torchvision
from torch import Tensor, nn

from smoothcert.classifiers import BlackBoxClassifier, ConvNet, ConvNetConfig, convnet, load, plain
from smoothcert.classifiers.http import HttpClassifier, Message
from smoothcert.engine.specify import component
from smoothcert.errors import InvalidInput, ModelOutputError
from smoothcert.protocols import Classifier
from smoothcert.smoothing import SmoothedClassifier
from smoothcert.smoothing.network import modules_of

CLASSES, BATCH = 10, 8
NAMES = tuple("0123456789")
GREY, COLOUR = (1, 8, 8), (3, 32, 32)
EXACT_PLACE = 1e-5  # of the scores' size: rows of a matrix product may round differently


def embedded_digits(folder: Path) -> Classifier:
    return load("digits")


def directory(folder: Path) -> Classifier:
    convnet.save(ConvNet(ConvNetConfig(GREY, NAMES, width=8)).train(), folder)
    return load(folder)


def function_of_labels(folder: Path) -> Classifier:
    return load(lambda images: (images.flatten(1).sum(1) * 100).long() % CLASSES)


def module_with_batch_norm_and_dropout(folder: Path) -> Classifier:
    features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5))
    return load(nn.Sequential(features, nn.Linear(144, CLASSES)).train())


def cifar_resnet(folder: Path) -> Classifier:
    made = plain.build("resnet20", classes=NAMES, mean=(0.5,) * 3, std=(0.25,) * 3)
    folder.mkdir(exist_ok=True)
    torch.save(made.network.state_dict(), folder / "net.th")
    return load(f"resnet20:{folder / 'net.th'}?mean=0.5,0.5,0.5&std=0.25,0.25,0.25")


def resnet_directory(folder: Path) -> Classifier:
    made = plain.build("resnet32", classes=NAMES, mean=(0.5,) * 3, std=(0.25,) * 3)
    plain.save(made, folder)
    return load(folder)


def transformers_vit(folder: Path) -> Classifier:
    with contextlib.suppress(ImportError):
        import_torchvision()  # transformers uses it where it is
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = hf.ViTConfig(**small, image_size=48, patch_size=8, num_labels=CLASSES)
    hf.ViTForImageClassification(config).save_pretrained(folder)
    hf.ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder)
    return load(f"transformers:{folder}")


def timm_resnet(folder: Path) -> Classifier:
    try:
        import_torchvision()
        import timm
    except ImportError:
        pytest.skip("timm is not installed")
    folder.mkdir(exist_ok=True)
    torch.save(timm.create_model("resnet10t", num_classes=CLASSES).state_dict(), folder / "net.pth")
    return load(f"timm:resnet10t@{folder / 'net.pth'}?size=48")


def torchvision_squeezenet(folder: Path) -> Classifier:
    try:
        import_torchvision()
    except ImportError:
        pytest.skip("torchvision is not installed")
    from torchvision import models

    folder.mkdir(exist_ok=True)
    torch.save(models.get_model("squeezenet1_1", num_classes=CLASSES).state_dict(), folder / "net.pth")
    return load(f"torchvision:squeezenet1_1@{folder / 'net.pth'}?size=48")


def onnx_graph(folder: Path) -> Classifier:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from onnx import TensorProto, helper, numpy_helper

    weight = torch.randn(CLASSES, 3, 32, 32).numpy()
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["corner"], strides=[32, 32]),
        helper.make_node("Flatten", ["corner"], ["scores"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["batch", *COLOUR]), ("scores", ["batch", CLASSES]))
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [numpy_helper.from_array(weight, "weight")])
    folder.mkdir(exist_ok=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        folder / "net.onnx",
    )
    return load(f"onnx:{folder / 'net.onnx'}?mean=0.5,0.5,0.5&std=0.25,0.25,0.25")


def black_box(folder: Path) -> Classifier:
    return BlackBoxClassifier(lambda pictures: pictures.astype(np.int64).sum(axis=(1, 2, 3)) % CLASSES)


def endpoint(folder: Path) -> Classifier:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            content = json.dumps({"labels": [str(sum(body) % CLASSES)]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    SERVERS.append(server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    return HttpClassifier(url, classes=NAMES, images=1, encode=lambda images: Message(images.tobytes()))


def vision_language_answers(folder: Path) -> Classifier:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from tests.encoders import tiny

    from smoothcert.encoders import answer_classifier

    return answer_classifier(*tiny.llava(), "what is it?", [*tiny.WORDS[2:11], "blue square"])


SERVERS: list[ThreadingHTTPServer] = []
KINDS: dict[Callable[[Path], Classifier], tuple[int, int, int]] = {
    embedded_digits: GREY,
    directory: GREY,
    function_of_labels: GREY,
    module_with_batch_norm_and_dropout: GREY,
    cifar_resnet: COLOUR,
    resnet_directory: COLOUR,
    transformers_vit: COLOUR,
    timm_resnet: COLOUR,
    torchvision_squeezenet: COLOUR,
    onnx_graph: COLOUR,
    black_box: COLOUR,
    endpoint: COLOUR,
    vision_language_answers: COLOUR,
}


class Case:
    """A classifier with images as a smoothed model shows them: noise leaves [0, 1]."""

    def __init__(self, build: Callable[[Path], Classifier], folder: Path) -> None:
        torch.manual_seed(0)  # of untrained networks only
        self.build, self.folder, self.shape = build, folder, KINDS[build]
        self.classifier: Any = build(folder)

    def noisy(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = (BATCH, *self.shape)
        return torch.rand(shape, generator=generator) + 0.5 * torch.randn(shape, generator=generator)

    def image(self) -> Any:
        generator = np.random.Generator(np.random.Philox(key=1))
        return generator.integers(2, 256, self.shape, dtype=np.uint8)


@pytest.fixture(params=list(KINDS), ids=lambda kind: kind.__name__, scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield Case(request.param, tmp_path_factory.mktemp("models") / "model")
    while SERVERS:
        server = SERVERS.pop()
        server.shutdown()
        server.server_close()


@torch.inference_mode()
def answers(classifier: Any, images: Tensor) -> Tensor:
    found: Tensor = classifier(images)
    return found


def test_gives_scores_or_labels_of_the_right_shape(case: Case) -> None:
    output = answers(case.classifier, case.noisy(0))
    if output.ndim == 1:
        assert output.shape == (BATCH,)
        assert output.dtype == torch.int64
        assert bool(((output >= 0) & (output < CLASSES)).all())
    else:
        assert output.shape == (BATCH, CLASSES)
        assert bool(torch.isfinite(output).all())


def test_the_same_batch_gets_the_same_answer(case: Case) -> None:
    images = case.noisy(1)
    first = answers(case.classifier, images)
    torch.manual_seed(99)
    assert torch.equal(answers(case.classifier, images.clone()), first)


def test_the_input_is_left_alone(case: Case) -> None:
    images = case.noisy(2)
    before = images.clone()
    answers(case.classifier, images)
    assert torch.equal(images, before)


def test_an_answer_does_not_depend_on_batch_mates(case: Case) -> None:
    images = case.noisy(3)
    alone_at = answers(case.classifier, images)
    for seed in (4, 5):
        for place in range(0, BATCH, 1 if case.shape == GREY else 3):
            others = case.noisy(seed)
            others[place] = images[place]
            assert torch.equal(answers(case.classifier, others)[place], alone_at[place])


def test_an_answer_does_not_depend_on_the_place_in_the_batch(case: Case) -> None:
    images = case.noisy(9)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(0))
    moved, expected = answers(case.classifier, images[order]), answers(case.classifier, images)[order]
    size = float(expected.abs().max()) if expected.is_floating_point() else 0.0
    assert torch.allclose(moved, expected, rtol=0.0, atol=EXACT_PLACE * size)


def test_extreme_inputs_do_not_crash(case: Case) -> None:
    for value in (0.0, 1.0, -10.0, 1e6):
        assert len(answers(case.classifier, torch.full((BATCH, *case.shape), value))) == BATCH


def test_no_module_is_left_in_training_mode(case: Case) -> None:
    answers(case.classifier, case.noisy(10))
    assert not any(part.training for module in modules_of(case.classifier) for part in module.modules())


def test_half_precision_stays_finite(case: Case) -> None:
    images = case.noisy(11).bfloat16()
    modules = modules_of(case.classifier)
    if not modules:
        assert len(answers(case.classifier, images)) == BATCH
        return
    half = copy.deepcopy(case.classifier)
    for module in modules_of(half):
        module.bfloat16()
    found, whole = answers(half, images).float(), answers(case.classifier, images.float()).float()
    assert bool(torch.isfinite(found).all())
    assert torch.allclose(found, whole, atol=0.3 * float(whole.abs().max()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cpu_and_cuda_agree(case: Case) -> None:
    images = case.noisy(12)
    expected = answers(case.classifier, images)
    there = copy.deepcopy(case.classifier)
    for module in modules_of(there):
        module.cuda()
    found = answers(there, images.cuda())
    assert found.device.type == "cuda"
    size = float(expected.abs().max()) if expected.is_floating_point() else 0.0
    assert torch.allclose(found.cpu(), expected, atol=0.01 * size)


def test_its_description_is_plain_data_and_the_same_when_loaded_again(case: Case) -> None:
    if case.build is endpoint:
        assert json.loads(json.dumps(case.classifier.describe()))["kind"] == "http"
        return
    again = Case(case.build, case.folder)
    ours, theirs = component(case.classifier), component(again.classifier)
    assert json.loads(json.dumps(ours.settings))["kind"]
    assert (ours.settings, ours.sha256) == (theirs.settings, theirs.sha256)
    known = hasattr(case.classifier, "weights_sha256") or bool(modules_of(case.classifier))
    assert (ours.sha256 is not None) == known


def test_images_of_another_kind_are_one_clear_error(case: Case) -> None:
    if case.build in (function_of_labels, black_box, endpoint, module_with_batch_norm_and_dropout):
        pytest.skip("it says nothing of what it takes")
    other = (BATCH, 4 if case.shape == COLOUR else 3, *case.shape[1:])
    with pytest.raises((InvalidInput, ModelOutputError)):
        answers(case.classifier, torch.zeros(other))


def test_it_can_be_certified(case: Case) -> None:
    smoothed = SmoothedClassifier(case.classifier, 0.25)
    found = smoothed.certify(case.image(), n0=10, n=50, batch=BATCH)
    again = smoothed.certify(case.image(), n0=10, n=50, batch=BATCH)
    assert (found.label, found.radius) == (again.label, again.radius)
    assert found.label is None or 0 <= found.label < CLASSES

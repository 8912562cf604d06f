"""Converted parts: the same function, a pure function of the batch, with an identity, and refused elsewhere."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import smoothcert as sc
from smoothcert import backends
from smoothcert.backends import Calibration, convert
from smoothcert.backends.graph import example
from smoothcert.backends.identity import weights_of
from smoothcert.classifiers import PretrainedClassifier
from smoothcert.denoisers import CallableDenoiser
from smoothcert.engine.specify import component
from smoothcert.errors import InvalidInput, MissingExtra, ModelOutputError, UnknownName
from smoothcert.networks.preprocessing import Preprocessing
from smoothcert.smoothing.calibration import calibration
from smoothcert.smoothing.network import intra_op_threads

pytest.importorskip("openvino", reason="openvino is not installed")
pytest.importorskip("nncf", reason="nncf is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SHAPE, BATCH, SIGMA = (1, 8, 8), 16, 0.5
GRAPHS = ("openvino:f32", "openvino:int8", "onnxruntime:f32", "onnxruntime:int8")
BF16 = "BF16" in __import__("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
# Largest difference to the part itself: of a denoised pixel on [0, 1], and of a score over the largest score.
PIXELS = {"f32": 1e-5, "bf16": 0.03, "int8": 0.12}
SCORES = {"f32": 1e-5, "bf16": 0.03, "int8": 0.2}


@pytest.fixture(scope="module")
def noisy() -> Tensor:
    data = sc.datasets.load("digits:test[:16]")
    images = np.stack([one.image for one in (data[k] for k in range(len(data)))]) / np.float32(16)
    noise = np.random.default_rng(0).normal(0, SIGMA, images.shape)
    return torch.from_numpy((images + noise).astype(np.float32))


def denoiser() -> Any:
    return sc.denoisers.load("digits")


def classifier() -> Any:
    return sc.classifiers.load("digits")


def typical(behind: Any | None = None) -> Calibration:
    return calibration(sc.datasets.load("digits:test"), SIGMA, denoiser=behind, batch=BATCH)


@cache
def converted(role: str, backend: str) -> Any:
    if role == "denoiser":
        return convert(denoiser(), backend, sigma=SIGMA, shape=SHAPE, batch=BATCH, calibration=typical())
    return convert(classifier(), backend, shape=SHAPE, batch=BATCH, calibration=typical(denoiser()))


def numbers(backend: str) -> str:
    return backends.parse(backend).numbers


RUNS_HERE = [
    "torch:f32+onednn",
    "torch:bf16",
    *GRAPHS,
    pytest.param("openvino:bf16", marks=pytest.mark.skipif(not BF16, reason="no bfloat16 here")),
]


@pytest.mark.parametrize("backend", RUNS_HERE)
def test_a_converted_denoiser_denoises_alike(backend: str, noisy: Tensor) -> None:
    with torch.inference_mode():
        expected, found = denoiser()(noisy, SIGMA), converted("denoiser", backend)(noisy, SIGMA)
    assert found.dtype == torch.float32
    assert torch.equal(found, found.clamp(0, 1))
    assert float((found - expected).abs().max()) <= PIXELS[numbers(backend)]
    if numbers(backend) in ("bf16", "int8"):
        assert not torch.equal(found, expected)  # it does compute in other numbers


@pytest.mark.parametrize("backend", RUNS_HERE)
def test_a_converted_classifier_scores_alike(backend: str, noisy: Tensor) -> None:
    with torch.inference_mode():
        clean = denoiser()(noisy, SIGMA)
        expected, found = classifier()(clean), converted("classifier", backend)(clean)
    assert float((found - expected).abs().max()) <= SCORES[numbers(backend)] * float(expected.abs().max())
    assert found.dtype == torch.float32


@pytest.mark.parametrize("backend", ["torch:bf16", *GRAPHS])
def test_both_together_pass_the_model_check_from_several_threads(backend: str) -> None:
    parts = converted("classifier", backend), converted("denoiser", backend)
    smoothed = sc.SmoothedClassifier(parts[0], SIGMA, denoiser=parts[1], levels=16)
    data = sc.datasets.load("digits:test[:8]")
    prepared = [smoothed.noise.prepare(data[k].image) for k in range(len(data))]
    with intra_op_threads(1):
        smoothed.check(prepared, seed=0, batch=BATCH, workers=4)


class Pieces(nn.Module):
    """Answers with NaN for dark images and infinity for bright ones."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.dirac_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.convolution(images)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        above = torch.where(mean < 0.1, torch.zeros_like(answer), answer)
        below = torch.where((mean > 0.9) | (mean < 0.1), torch.zeros_like(mean), torch.ones_like(mean))
        return above / below


class Clamped:
    """As denoisers do: the network's answer, confined to [0, 1]."""

    source = "pieces"

    def __init__(self) -> None:
        self.network = Pieces()

    def __call__(self, noisy: Tensor, sigma: float) -> Tensor:
        clean: Tensor = self.network(noisy)
        return clean.clamp(0, 1) + 0 * clean


class Clipped(Clamped):
    """As users write it: in torch a clamp keeps NaN, elsewhere it need not."""

    def __call__(self, noisy: Tensor, sigma: float) -> Tensor:
        clean: Tensor = self.network(noisy)
        return clean.clamp(0, 1)


def dark_and_bright() -> Tensor:
    """Images 3 and 5 are such, within the range that 8-bit scales allow."""
    images = torch.from_numpy(example(BATCH, SHAPE))
    images[3], images[5] = 0.02, 0.98
    return images


def broken_rows(answers: Tensor) -> list[int]:
    found: list[int] = (~torch.isfinite(answers.flatten(1)).all(dim=1)).nonzero().flatten().tolist()
    return found


@pytest.mark.parametrize("backend", ["torch:bf16", *GRAPHS])
def test_what_is_not_finite_stays_so_behind_a_clamp(backend: str) -> None:
    seen = Calibration(example(BATCH, SHAPE))
    part = convert(Clamped(), backend, sigma=SIGMA, shape=SHAPE, batch=BATCH, calibration=seen)
    with torch.inference_mode():
        assert broken_rows(part(dark_and_bright(), SIGMA)) == [3, 5]


@pytest.mark.parametrize("backend", GRAPHS)
def test_nan_is_not_finite_behind_a_plain_clamp_either(backend: str) -> None:
    seen = Calibration(example(BATCH, SHAPE))
    part = convert(Clipped(), backend, sigma=SIGMA, shape=SHAPE, batch=BATCH, calibration=seen)
    assert 3 in broken_rows(Clipped()(dark_and_bright(), SIGMA))
    assert 3 in broken_rows(part(dark_and_bright(), SIGMA))


@pytest.mark.parametrize("backend", ["torch:bf16", *GRAPHS])
def test_scores_that_are_not_finite_stay_so(backend: str) -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pieces, self.head = Pieces(), nn.Linear(64, 3)

        def forward(self, images: Tensor) -> Tensor:
            scores: Tensor = self.head(images.flatten(1))
            return scores + self.pieces(images).flatten(1).mean(dim=1, keepdim=True)

    torch.manual_seed(0)
    seen = Calibration(example(BATCH, SHAPE))
    part = convert(Scores(), backend, shape=SHAPE, batch=BATCH, calibration=seen)
    with torch.inference_mode():
        assert broken_rows(part(dark_and_bright())) == [3, 5]


@pytest.mark.parametrize("backend", ["openvino:int8", "onnxruntime:int8"])
def test_8_bits_do_not_hide_a_network_that_is_not_finite(backend: str) -> None:
    part = Clamped()
    nn.init.constant_(part.network.convolution.weight, torch.nan)
    seen = Calibration(example(BATCH, SHAPE))
    with pytest.raises(InvalidInput, match="not finite on the calibration images"):
        convert(part, backend, sigma=SIGMA, shape=SHAPE, batch=BATCH, calibration=seen)


@pytest.mark.parametrize("backend", GRAPHS)
def test_answers_are_the_same_from_many_threads_and_after_pickling(backend: str, noisy: Tensor) -> None:
    part = converted("denoiser", backend)
    with intra_op_threads(1):
        expected = part(noisy, SIGMA)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda k: part(noisy, SIGMA), range(24)))
        there = pickle.loads(pickle.dumps(part))
        assert all(torch.equal(expected, answer) for answer in [*answers, there(noisy, SIGMA)])
    assert there.weights_sha256 == part.weights_sha256


@pytest.mark.parametrize("backend", ["torch:bf16", *GRAPHS])
def test_the_run_knows_backend_original_and_result(backend: str) -> None:
    part = converted("denoiser", backend)
    told, plain = component(part), component(denoiser())
    assert told.settings["backend"] == backend
    assert told.settings["original_sha256"] == plain.sha256
    assert told.sha256 not in (None, plain.sha256)
    assert told.source == "digits"
    assert {**told.settings, **plain.settings} == told.settings
    if part.__class__.__name__ == "GraphDenoiser":
        made = told.settings["conversion"]
        assert (made["shape"], made["batch"], made["sigma"]) == ([1, 8, 8], BATCH, SIGMA)
        assert set(made["versions"]) >= {backend.partition(":")[0]}
        assert ("calibration" in made) == (numbers(backend) == "int8")


def test_calibration_images_change_the_scales_and_the_identity() -> None:
    def one(images: Calibration) -> Any:
        return convert(denoiser(), "openvino:int8", sigma=SIGMA, shape=SHAPE, batch=BATCH, calibration=images)

    first, second = one(Calibration(example(BATCH, SHAPE))), one(Calibration(3 * example(BATCH, SHAPE)))
    assert first.weights_sha256 != second.weights_sha256
    assert first.describe() != second.describe()


class Resizing:
    """A small transformer of the hub's kind, its preprocessing included."""

    @staticmethod
    def load(interpolation: str, crop: tuple[int, int] | None = None) -> PretrainedClassifier:
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        config = transformers.ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=24,
            patch_size=8,
            num_labels=5,
        )
        told = Preprocessing(
            (0.5, 0.4, 0.3),
            (0.2, 0.3, 0.4),
            size=(24, 24) if crop is None else (30, 28),
            interpolation=interpolation,
            crop=crop,
            order="bgr",
        )
        network = transformers.ViTForImageClassification(config).eval()
        return PretrainedClassifier(network, told, kind="vit", class_count=5, classes=tuple("abcde")).eval()


@pytest.mark.parametrize("backend", ["torch:bf16", "torch:f32+onednn", *GRAPHS])
@pytest.mark.parametrize(("interpolation", "crop"), [("bicubic", None), ("lanczos", (24, 24))])
def test_a_transformer_with_its_resizing(
    backend: str, interpolation: str, crop: tuple[int, int] | None
) -> None:
    whole = Resizing.load(interpolation, crop)
    images = torch.from_numpy(example(BATCH, (3, 12, 10)))
    seen = Calibration(example(BATCH, (3, 12, 10), offset=7))
    part = convert(whole, backend, shape=(3, 12, 10), batch=BATCH, calibration=seen)
    with torch.inference_mode():
        expected, found = whole(images), part(images)
    assert float((found - expected).abs().max()) <= SCORES[numbers(backend)] * float(expected.abs().max())
    assert part.classes == tuple("abcde")
    assert whole.preprocessing.size is not None  # the original stays what it was
    assert torch.equal(whole(images), expected)


def test_half_precision_is_in_the_weights_and_leaves_the_original() -> None:
    original = denoiser()
    before = weights_of(original)
    part = convert(original, "torch:bf16")
    kinds = {tensor.dtype for tensor in part.parameters()}
    assert kinds == {torch.bfloat16}
    assert weights_of(original) == before


def test_autocast_adds_nothing_to_a_converted_part(noisy: Tensor) -> None:
    part = convert(classifier(), "torch:f32+onednn")
    with torch.inference_mode():
        expected = part(noisy)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(part(noisy), expected)


# -- refusals ---------------------------------------------------------------------------------------------


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"openvino:int8.*torch:bf16"):
        convert(classifier(), "openvino:int4")


@pytest.mark.parametrize(
    ("library", "backend"),
    [("openvino", "openvino:f32"), ("nncf", "openvino:int8"), ("onnxruntime", "onnxruntime:f32")],
)
def test_a_missing_library_is_named_with_its_extra(
    library: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata as metadata

    real = metadata.version

    def version(name: str) -> str:
        if name == library:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    extra = "onnx" if library == "onnxruntime" else "openvino"
    with pytest.raises(MissingExtra, match=rf"{library}.*smoothcert\[{extra}\]"):
        converted.__wrapped__("denoiser", backend)  # not one made before


@pytest.mark.parametrize("backend", ["openvino:int8", "onnxruntime:int8"])
def test_8_bits_need_calibration_images_of_the_shape(backend: str) -> None:
    told: dict[str, Any] = {"sigma": SIGMA, "shape": SHAPE, "batch": BATCH}
    with pytest.raises(InvalidInput, match="without calibration"):
        convert(denoiser(), backend, **told)
    other = Calibration(np.zeros((4, 1, 16, 16), np.float32))
    with pytest.raises(InvalidInput, match=r"calibration images \(1, 16, 16\)"):
        convert(denoiser(), backend, calibration=other, **told)
    with pytest.raises(InvalidInput, match="finite"):
        convert(denoiser(), backend, calibration=Calibration(np.full((4, *SHAPE), np.nan)), **told)


@pytest.mark.parametrize("backend", GRAPHS)
def test_a_sampler_that_draws_is_refused(backend: str) -> None:
    part = sc.denoisers.load("digits", sampler="ancestral")
    with pytest.raises(InvalidInput, match=r"noise that this sampler draws.*one-shot"):
        convert(part, backend, sigma=SIGMA, shape=SHAPE, batch=BATCH, calibration=typical())


def test_a_sampler_of_several_steps_without_noise_is_one_graph(noisy: Tensor) -> None:
    part = sc.denoisers.load("digits", sampler="ddim:3")
    found = convert(part, "openvino:f32", sigma=SIGMA, shape=SHAPE, batch=BATCH)(noisy, SIGMA)
    with torch.inference_mode():
        assert float((found - part(noisy, SIGMA)).abs().max()) < 1e-4


def test_a_graph_refuses_other_batches_shapes_and_sigmas(noisy: Tensor) -> None:
    part = converted("denoiser", "openvino:f32")
    with pytest.raises(InvalidInput, match=r"\(8, 1, 8, 8\).*\(16, 1, 8, 8\)"):
        part(noisy[:8], SIGMA)
    with pytest.raises(InvalidInput, match=r"sigma=0\.25.*sigma=0\.5"):
        part(noisy, 0.25)
    with pytest.raises(InvalidInput, match="batch="):
        convert(denoiser(), "openvino:f32", sigma=SIGMA)


def test_float16_on_a_cpu_is_refused_when_asked(noisy: Tensor) -> None:
    with pytest.raises(InvalidInput, match=r"float16.*torch:bf16"):
        convert(classifier(), "torch:f16")(noisy)


def uncertain(images: Tensor) -> Tensor:
    """Which way it goes depends on pixels: a trace keeps one way."""
    pixel = images[:, :, 0, 0]
    return (
        torch.cat([pixel, -pixel], dim=1)
        if float(images[0, 0, 0, 0]) < 0.01
        else torch.cat([-pixel, pixel], 1)
    )


def by_numpy(images: Tensor) -> Tensor:
    """A trace keeps the numbers of one batch as constants."""
    means = images.numpy().mean(axis=(1, 2, 3))
    return torch.from_numpy(np.stack([means, 1 - means], axis=1))


@pytest.mark.parametrize("function", [uncertain, by_numpy])
@pytest.mark.parametrize("backend", ["openvino:f32", "openvino:int8", "onnxruntime:int8"])
def test_a_function_that_no_graph_holds_is_noticed(
    backend: str, function: Callable[[Tensor], Tensor]
) -> None:
    part = sc.classifiers.load(function)
    seen = Calibration(example(BATCH, SHAPE))
    with pytest.raises((ModelOutputError, InvalidInput), match=r"another function|cannot be converted"):
        convert(part, backend, shape=SHAPE, batch=BATCH, calibration=seen)


def test_parts_without_a_network_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no torch module"):
        convert(sc.classifiers.load(by_numpy), "torch:bf16")
    labels = sc.classifiers.load(lambda images: images.flatten(1).argmax(dim=1))
    with pytest.raises(InvalidInput, match="labels"):
        convert(labels, "openvino:f32", shape=SHAPE, batch=BATCH)
    twice = converted("classifier", "openvino:f32")
    with pytest.raises(InvalidInput, match="runs it already"):
        convert(twice, "onnxruntime:f32", shape=SHAPE, batch=BATCH)


def test_a_plain_denoising_function_converts(noisy: Tensor) -> None:
    part = CallableDenoiser(lambda images, sigma: (images / (1 + sigma)).clamp(0, 1), name="shrink")
    found = convert(part, "onnxruntime:f32", sigma=SIGMA, shape=SHAPE, batch=BATCH)
    assert torch.allclose(found(noisy, SIGMA), part(noisy, SIGMA), atol=1e-6)
    assert found.describe()["code_sha256"]


# -- the cache --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["openvino:f32", "onnxruntime:int8"])
def test_a_damaged_stored_model_is_made_again(backend: str, tmp_path: Path, noisy: Tensor) -> None:
    told: dict[str, Any] = {"sigma": SIGMA, "shape": SHAPE, "batch": BATCH, "cache": tmp_path}
    first = convert(denoiser(), backend, calibration=typical(), **told)
    (entry,) = tmp_path.iterdir()
    model = next(path for path in entry.iterdir() if path.suffix in (".bin", ".onnx"))
    whole = model.read_bytes()
    model.write_bytes(whole[:-100] + bytes(100))
    again = convert(denoiser(), backend, calibration=typical(), **told)
    assert again.weights_sha256 == first.weights_sha256
    assert torch.equal(again(noisy, SIGMA), first(noisy, SIGMA))
    assert model.read_bytes() == whole


def test_a_stored_model_is_read_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {"sigma": SIGMA, "shape": SHAPE, "batch": BATCH, "cache": tmp_path}
    first = convert(denoiser(), "openvino:f32", **told)
    from smoothcert.backends import openvino

    monkeypatch.setattr(openvino, "build", lambda *_: pytest.fail("converted again"))
    assert convert(denoiser(), "openvino:f32", **told).weights_sha256 == first.weights_sha256
    monkeypatch.undo()
    assert (
        convert(denoiser(), "openvino:f32", **{**told, "sigma": 0.25}).weights_sha256 != first.weights_sha256
    )
    assert len(list(tmp_path.iterdir())) == 2

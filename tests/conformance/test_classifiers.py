"""What every classifier must do, whatever it is made of: one suite that each kind passes.

Images have seven neighbours in a batch of fixed shape, as in the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from smoothcert.classifiers import ConvNet, ConvNetConfig, convnet, load
from smoothcert.protocols import Classifier

SHAPE, CLASSES, BATCH = (1, 8, 8), 10, 8


def embedded_digits(folder: Path) -> Classifier:
    return load("digits")


def directory(folder: Path) -> Classifier:
    convnet.save(ConvNet(ConvNetConfig(SHAPE, tuple("0123456789"), width=8)).train(), folder)
    return load(folder)


def function_of_labels(folder: Path) -> Classifier:
    return load(lambda images: (images.flatten(1).sum(1) * 100).long() % CLASSES)


def module_with_batch_norm_and_dropout(folder: Path) -> Classifier:
    features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5))
    return load(nn.Sequential(features, nn.Linear(144, CLASSES)).train())


KINDS = [embedded_digits, directory, function_of_labels, module_with_batch_norm_and_dropout]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def classifier(request: pytest.FixtureRequest, tmp_path: Path) -> Classifier:
    build: Callable[[Path], Classifier] = request.param
    torch.manual_seed(0)  # of the untrained networks above only
    return build(tmp_path / "model")


def noisy_images(seed: int, count: int = BATCH) -> Tensor:
    """Images as a smoothed model sees them: noise leaves [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, *SHAPE)
    return torch.rand(shape, generator=generator) + 0.5 * torch.randn(shape, generator=generator)


def test_gives_scores_or_labels_of_the_right_shape(classifier: Classifier) -> None:
    output = classifier(noisy_images(0))
    if output.ndim == 1:
        assert output.shape == (BATCH,)
        assert output.dtype == torch.int64
        assert bool(((output >= 0) & (output < CLASSES)).all())
    else:
        assert output.shape == (BATCH, CLASSES)
        assert bool(torch.isfinite(output).all())


def test_the_same_batch_gets_the_same_answer(classifier: Classifier) -> None:
    images = noisy_images(1)
    first = classifier(images)
    torch.manual_seed(99)
    assert torch.equal(classifier(images.clone()), first)


def test_the_input_is_left_alone(classifier: Classifier) -> None:
    images = noisy_images(2)
    before = images.clone()
    classifier(images)
    assert torch.equal(images, before)


def test_an_answer_does_not_depend_on_batch_mates(classifier: Classifier) -> None:
    images = noisy_images(3)
    alone_at = classifier(images)
    for seed in range(4, 8):
        for place in range(BATCH):
            others = noisy_images(seed)
            others[place] = images[place]
            assert torch.equal(classifier(others)[place], alone_at[place])


def test_an_answer_does_not_depend_on_the_place_in_the_batch(classifier: Classifier) -> None:
    images = noisy_images(9)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(0))
    assert torch.equal(classifier(images[order]), classifier(images)[order])


def test_extreme_inputs_do_not_crash(classifier: Classifier) -> None:
    for value in (0.0, 1.0, -10.0, 1e6):
        assert len(classifier(torch.full((BATCH, *SHAPE), value))) == BATCH


def test_no_module_is_left_in_training_mode(classifier: Classifier) -> None:
    classifier(noisy_images(10))
    model = getattr(classifier, "function", classifier)
    if isinstance(model, nn.Module):
        assert not any(part.training for part in model.modules())

"""The SHAPES benchmark: its reading of images and questions, its made examples, its model and its attack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.realdata import needs

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import shapes_data as shapes

pytestmark = needs("shapes_vqa/shapes_vqa.npz")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_what_is_read_of_images_and_questions_gives_every_published_answer(split: str) -> None:
    data = shapes.read(split)
    grids = shapes.parsed(data.images)
    found = [shapes.answer(question, grid) for question, grid in zip(data.questions, grids, strict=True)]
    assert np.array_equal(found, data.answers)


def test_every_published_question_is_of_the_grammar() -> None:
    known = set(shapes.questions())
    assert len(known) == len(shapes.questions())
    for split in ("train", "val", "test"):
        assert set(shapes.read(split).questions) <= known


def test_made_examples_consist_of_training_cells_and_have_the_answers_that_are_read_of_them() -> None:
    train = shapes.read("train").images
    made = shapes.Maker(train).batch(300, np.random.default_rng(0))
    given = {cell.tobytes() for grid in shapes.cells(train) for cell in grid}
    given |= {cell[:, :, ::-1].tobytes() for grid in shapes.cells(train) for cell in grid}
    assert all(cell.tobytes() in given for grid in shapes.cells(made.images) for cell in grid)
    grids = shapes.parsed(made.images)
    found = [shapes.answer(question, grid) for question, grid in zip(made.questions, grids, strict=True)]
    assert np.array_equal(found, made.answers)
    assert np.array_equal(made.where.any(axis=1), made.answers)
    assert 0.4 < made.answers.mean() < 0.6
    assert set(made.questions) <= set(shapes.questions())


def test_what_is_seen_from_a_cell_is_what_lies_there() -> None:
    """A cell is left of its right neighbour, and above its neighbour below."""
    images, texts, words = shapes.Maker(shapes.read("train").images).looks(400, np.random.default_rng(0))
    grids, asked = shapes.parsed(images).reshape(-1, 3, 3), set()
    for text, grid, seen in zip(texts, grids, words.reshape(-1, 3, 3), strict=True):
        said = text.split()
        steps = [word for word in said if word in shapes.STEPS]
        if {*steps} in ({"above", "below"}, {"left", "right"}):
            continue  # there and back, which may lead over the edge
        down, right = (steps.count(a) - steps.count(b) for a, b in (("above", "below"), ("left", "right")))
        things = [word for word in said if word in (*shapes.SHAPES, *shapes.COLOURS)]
        thing = None if not things else things[0] if said[0] == "first" else things[-1]
        down, right = (0, 0) if said[0] == "first" else (down, right)
        asked.add((len(things), len(steps)))
        for y, x in np.ndindex(3, 3):
            there = 0 <= y + down < 3 and 0 <= x + right < 3
            kind = grid[y + down, x + right] if there else shapes.EMPTY
            names = (
                (shapes.SHAPES[kind // 3], shapes.COLOURS[kind % 3])
                if kind != shapes.EMPTY
                else ("nothing",) * 2
            )
            wanted = names[said[0] == "colour"] if thing is None else "yes" if thing in names else "no"
            assert seen[y, x] == wanted
    assert asked == {(things, count) for things in range(3) for count in range(3)}


def test_made_examples_depend_on_the_generator_alone() -> None:
    maker = shapes.Maker(shapes.read("train").images)
    one, other = (maker.batch(20, np.random.default_rng([0, 7])) for _ in range(2))
    assert np.array_equal(one.images, other.images)
    assert one.questions == other.questions


def test_words_describe_a_grid() -> None:
    words = shapes.described(np.array([shapes.EMPTY] * 8 + [3 * 1 + 2])).split()
    assert words == ["nothing"] * 16 + ["blue", "square"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model with fresh weights and its processor, in transformers' own format."""
    pytest.importorskip("transformers")
    import shapes_model

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("shapes")
    model = shapes_model.new_model().eval()
    model.save_pretrained(place)
    shapes_model.new_processor().save_pretrained(place)
    return model, place


def test_the_processor_that_is_saved_writes_what_the_reader_writes(saved: tuple[Any, Path]) -> None:
    import shapes_model
    from PIL import Image
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(saved[1], local_files_only=True)
    data = shapes.read("val")
    images, questions = data.images[::100], list(data.questions[::100])
    pictures = [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
    texts = [shapes_model.prompt(question) for question in questions]
    written = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
    ids, mask = shapes_model.Reader()(questions)
    assert torch.equal(written["input_ids"], ids)
    assert torch.equal(written["attention_mask"], mask)
    torch.testing.assert_close(written["pixel_values"], shapes_model.pixels(images))


def test_what_is_saved_is_what_the_packages_tower_and_answers_see(saved: tuple[Any, Path]) -> None:
    """The tower of the saved model, and a question of it as a classifier, agree with the model itself."""
    import shapes_attack
    import shapes_model
    from transformers import AutoProcessor

    from smoothcert.encoders import answer_classifier

    images, question = shapes.read("val").images[:5], shapes.read("val").questions[0]
    variant = shapes_attack.load(saved[1], sigma=0.25)[0]
    processor = AutoProcessor.from_pretrained(saved[1], local_files_only=True)
    reader = shapes_model.Reader()
    with torch.inference_mode():
        told = shapes_model.scores(saved[0], reader, images, [question] * 5).log_softmax(dim=1)
        asked = answer_classifier(variant.model, processor, question, ["no", "yes"])
        torch.testing.assert_close(asked(torch.from_numpy(images) / 255), told[:, reader.answers])
    assert shapes_attack.tower(str(saved[1]))(torch.from_numpy(images) / 255).shape == (5, 9, 96)


def test_with_hardly_any_noise_the_smoothed_model_answers_as_the_plain_one(saved: tuple[Any, Path]) -> None:
    import shapes_attack

    data = shapes_attack.some(shapes.read("val"), 32)
    plain, smoothed = shapes_attack.load(saved[1], sigma=0.002, draws=4)
    one, other = (variant.loss(data.questions, data.answers, 4, 0) for variant in (plain, smoothed))
    images = torch.from_numpy(data.images).float() / 255
    torch.testing.assert_close(one(images), other(images), rtol=0.02, atol=0.02)
    for loss in (one, other):
        moving = images.clone().requires_grad_()
        assert float(torch.autograd.grad(loss(moving).sum(), moving)[0].abs().sum()) > 0
    agree = np.mean(
        plain.answers(data.images, data.questions, 0) == smoothed.answers(data.images, data.questions, 0)
    )
    assert agree > 0.9


def test_the_attack_stays_within_its_radius_and_raises_the_loss(saved: tuple[Any, Path]) -> None:
    import shapes_attack

    from smoothcert.attacks.search import Search

    data = shapes_attack.some(shapes.read("val"), 8)
    for variant in shapes_attack.load(saved[1], sigma=0.25, draws=4):
        images = shapes_attack.attacked(variant, data, 0.5, Search(steps=5, eot=4))
        moved = (images.astype(float) - data.images) / 255
        assert np.sqrt((moved**2).sum(axis=(1, 2, 3))).max() <= 0.5
        loss = variant.loss(data.questions, data.answers, 64, 1)
        before, after = (loss(torch.from_numpy(one).float() / 255) for one in (data.images, images))
        assert float((after - before).mean()) > 0

"""Visual question answering under attack: plain, with a smoothed tower (FS), and with FS and a booster.

python benchmarks/shapes_attack.py MODEL [--booster DIR] [--denoiser DIR] [--sigma 0.25] [--radii 0.25,0.5,1]

MODEL is what ``shapes_model.py`` wrote. An attacker who knows everything raises the negative log-likelihood of
the right answer by gradients through the noise, the purifier, the tower, the mapper and the language model, in
an L2 ball around the image (pixels in [0, 1]). Answers are then given on noise he has not seen.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapes_data as shapes
import torch
from shapes_model import Reader, scores
from torch import Tensor

from smoothcert import denoisers
from smoothcert.attacks.answers import attack_answers, success_rate
from smoothcert.attacks.search import Search
from smoothcert.encoders import mapper as mappers
from smoothcert.encoders import vision_tower
from smoothcert.smoothing.vlm import SmoothedVLM

_BATCH, _CALIBRATION = 64, 256


@dataclass(frozen=True, eq=False)
class Variant:
    """One way to answer: the model as it is (``vlm`` is ``None``), or on the mean of ``draws`` noisy features."""

    name: str
    model: Any
    vlm: SmoothedVLM | None
    draws: int = 64

    def answers(self, images: Any, questions: Sequence[str], seed: int) -> Any:
        """What it says ``(B,)``, bool, of uint8 images; a smoothed one with the noise of ``seed``."""
        found = []
        for start in range(0, len(questions), _BATCH):
            part = slice(start, start + _BATCH)
            found.append(self._said(images[part], questions[part], seed, start))
        return np.concatenate(found)

    @torch.inference_mode()
    def _said(self, images: Any, questions: Sequence[str], seed: int, first: int) -> Any:
        if self.vlm is None:
            return _yes(scores(self.model, Reader(), images, questions))
        names = range(first, first + len(questions))
        served = self.vlm.features(images, n=self.draws, seed=seed, example=names)
        with self.vlm.serving(served) as model:
            return _yes(scores(model, Reader(), images, questions))

    def loss(self, questions: Sequence[str], right: Any, eot: int, seed: int) -> Any:
        """``(B, 3, 30, 30)`` -> negative log-likelihood of the right answer among the two, fresh noise a call."""
        reader, random = Reader(), torch.Generator().manual_seed(seed)
        wanted = torch.from_numpy(np.asarray(right)).long()

        def raised(images: Tensor) -> Tensor:
            if self.vlm is None:
                told = scores(self.model, reader, images, questions)
            else:
                noise = torch.randn((eot, *images.shape), generator=random)
                noisy = (images + self.vlm.smoothed.sigma * noise).flatten(0, 1)
                mean = self.vlm.smoothed.network.differentiable(noisy).unflatten(0, (eot, -1)).mean(dim=0)
                served = self.vlm.norm * mean / torch.linalg.vector_norm(mean, dim=1, keepdim=True)
                with self.vlm.serving(served.unflatten(1, self.vlm.tower.shape)) as model:
                    told = scores(model, reader, images, questions)
            both = told[:, reader.answers].log_softmax(dim=1)
            return -both[torch.arange(len(both)), wanted]

        return raised


def load(
    directory: str | Path,
    *,
    sigma: float,
    booster: str | None = None,
    denoiser: str | None = None,
    draws: int = 64,
) -> list[Variant]:
    """Plain and FS; FS + booster where one is given: a mapper, and the denoiser it was trained behind."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = (
        LlavaForConditionalGeneration.from_pretrained(directory, local_files_only=True)
        .eval()
        .requires_grad_(False)
    )
    processor = AutoProcessor.from_pretrained(directory, local_files_only=True)
    ordinary = torch.from_numpy(shapes.read("train").images[:_CALIBRATION]) / 255
    common = {"calibration": ordinary, "n": draws}
    found = [
        Variant("plain", model, None),
        Variant("FS", model, SmoothedVLM(model, processor, sigma, **common), draws),
    ]
    if booster is not None:
        parts = {
            "mapper": mappers.load(booster),
            "denoiser": denoisers.load(denoiser) if denoiser is not None else None,
        }
        found.append(
            Variant("FS + booster", model, SmoothedVLM(model, processor, sigma, **common, **parts), draws)
        )
    return found


def tower(directory: str) -> Any:
    """The model's vision tower as an encoder, for ``train booster --encoder python:shapes_attack:...``."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = (
        LlavaForConditionalGeneration.from_pretrained(directory, local_files_only=True)
        .eval()
        .requires_grad_(False)
    )
    return vision_tower(model, AutoProcessor.from_pretrained(directory, local_files_only=True))


def attacked(variant: Variant, split: shapes.Split, radius: float, search: Search) -> Any:
    """uint8 images within ``radius`` of the split's, made to be answered wrongly by ``variant``."""
    found = []
    for start in range(0, len(split.questions), _BATCH):
        part = slice(start, start + _BATCH)
        loss = variant.loss(split.questions[part], split.answers[part], search.eot, search.seed + start)
        images = torch.from_numpy(split.images[part]).float() / 255
        found.append(attack_answers(loss, images, radius=radius, search=search).images)
    return (torch.cat(found) * 255).round().to(torch.uint8).numpy()


def report(variant: Variant, split: shapes.Split, radii: Sequence[float], search: Search) -> dict[str, Any]:
    """Accuracy without and under attack, in percent, and how many of the right answers were changed."""
    before = variant.answers(split.images, split.questions, seed=1)
    found: dict[str, Any] = {
        "variant": variant.name,
        "images": len(before),
        "accuracy": _percent(before == split.answers),
    }
    for radius in radii:
        images = attacked(variant, split, radius, search)
        after = variant.answers(images, split.questions, seed=2)
        changed, were_right = success_rate(before, after, split.answers)
        found[f"at {radius}"] = {
            "accuracy": _percent(after == split.answers), "changed": int(changed), "were_right": int(were_right),
            "success": round(100 * changed / max(1, were_right), 2),
        }  # fmt: skip
    return found


def some(split: shapes.Split, count: int) -> shapes.Split:
    """Every so-manieth example, so that all questions are among them."""
    chosen = np.linspace(0, len(split.questions) - 1, count).round().astype(int)
    return shapes.Split(
        split.images[chosen], tuple(split.questions[k] for k in chosen), split.answers[chosen]
    )


def _yes(told: Tensor) -> Any:
    no, yes = told[:, Reader().answers].unbind(dim=1)
    return (yes > no).numpy()


def _percent(right: Any) -> float:
    return round(100 * float(np.mean(right)), 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--booster")
    parser.add_argument("--denoiser")
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--radii", default="0.25,0.5,1")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--draws", type=int, default=64, help="of a served feature")
    parser.add_argument("--steps", type=int, default=20, help="of the attack")
    parser.add_argument("--eot", type=int, default=16, help="noise draws a gradient")
    given = parser.parse_args()
    chosen = some(shapes.read("test"), given.images)
    effort = Search(steps=given.steps, eot=given.eot)
    for one in load(
        given.model, sigma=given.sigma, booster=given.booster, denoiser=given.denoiser, draws=given.draws
    ):
        radii = [float(part) for part in given.radii.split(",")]
        print(json.dumps(report(one, chosen, radii, effort)), flush=True)

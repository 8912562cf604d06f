"""What can be proved of the SHAPES model: answers by votes, and the cosine of its smoothed tower.

python benchmarks/shapes_certify.py MODEL [--booster DIR] [--denoiser DIR] [--sigma 0.25] [--images 64] [--n 500]

The answer of single noisy images is certified by votes (``encoders.answer_classifier`` in a
``SmoothedClassifier``), with and without the denoiser; the feature that the language model is given by its
cosine (``SmoothedEncoder``), with and without the booster. Test images; one line of JSON each.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import shapes_data as shapes
from shapes_attack import load, some

import smoothcert as sc
from smoothcert import denoisers
from smoothcert.smoothing.network import intra_op_threads

RADII = (0.0, 0.1, 0.25, 0.5, 0.75)
COSINES = (0.1, 0.25, 0.5)


def answers(
    model: Any, processor: Any, split: shapes.Split, sigma: float, denoiser: Any, n: int
) -> dict[str, Any]:
    """Share of the images whose answer is right and certified at each radius, in percent."""
    radii = np.zeros(len(split.questions))
    for question in dict.fromkeys(split.questions):
        chosen = [k for k, text in enumerate(split.questions) if text == question]
        asked = sc.encoders.answer_classifier(model, processor, question, ["no", "yes"])
        smoothed = sc.SmoothedClassifier(asked, sigma, denoiser=denoiser)
        found = smoothed.certify(split.images[chosen], n0=50, n=n, batch=32)
        for k, certificate in zip(chosen, found, strict=True):
            radii[k] = certificate.radius if certificate.label == int(split.answers[k]) else -1.0
    return {f"r = {radius:g}": round(100 * float((radii >= max(radius, 1e-9)).mean()), 1) for radius in RADII}


def cosines(smoothed: Any, split: shapes.Split, n: int) -> dict[str, Any]:
    """Mean certified cosine at each radius, ours and the paper's, and the mean of m."""
    found = smoothed.certify(split.images, n0=50, n=n, batch=32)
    ours = np.mean([certificate.cosine_lower(np.array(COSINES)) for certificate in found], axis=0)
    field = np.mean([certificate.paper_cosine_lower(np.array(COSINES)) for certificate in found], axis=0)
    return {
        "m": round(float(np.mean([certificate.m_lower for certificate in found])), 4),
        "ours": dict(zip(map(str, COSINES), ours.round(4).tolist(), strict=True)),
        "paper": dict(zip(map(str, COSINES), field.round(4).tolist(), strict=True)),
    }


def main(given: argparse.Namespace) -> None:
    """Print a line for each kind of certificate."""
    from transformers import AutoProcessor

    split = some(shapes.read("test"), given.images)
    processor = AutoProcessor.from_pretrained(given.model, local_files_only=True)
    variants = load(given.model, sigma=given.sigma, booster=given.booster, denoiser=given.denoiser)
    facts = {"sigma": given.sigma, "images": given.images, "n": given.n, "alpha": 0.001}
    for name, path in (("votes", None), ("votes, denoiser", given.denoiser)):
        if path is None and name != "votes":
            continue
        denoiser = denoisers.load(path) if path else None
        found = answers(variants[0].model, processor, split, given.sigma, denoiser, given.n)
        print(json.dumps({"certificate": name, **facts, "right and certified": found}), flush=True)
    for variant in variants[1:]:
        found = cosines(variant.vlm.smoothed, split, given.n)
        print(json.dumps({"certificate": f"cosine, {variant.name}", **facts, **found}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--booster")
    parser.add_argument("--denoiser")
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--n", type=int, default=500)
    with intra_op_threads(1):
        main(parser.parse_args())

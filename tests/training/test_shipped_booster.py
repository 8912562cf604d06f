"""The booster inside the package does what its card says."""

from __future__ import annotations

import pytest

from smoothcert import denoisers, encoders
from smoothcert.checkpoints import embedded, read_card
from smoothcert.datasets import load
from smoothcert.encoders import mapper
from smoothcert.training.booster_batches import Frozen
from smoothcert.training.booster_figures import booster_figures


def test_the_shipped_mapper_makes_features_steadier_and_its_card_says_by_how_much() -> None:
    card = read_card(embedded("digits-booster")).content
    assert card["command"].startswith(
        "smoothcert train booster --encoder digits --denoiser digits --data digits"
    )
    frozen = Frozen(encoders.load("digits"), denoisers.load("digits"))
    model = mapper.load("digits")
    assert model.source == "digits"
    found = booster_figures(frozen, model, load("digits:test"), load("digits:train"), model.sigmas)
    promised = card["figures"]
    for name in ("m_both", "score_both", "cosine_0.5_both", "m_purifier"):
        assert found[name] == pytest.approx(promised[name], abs=0.005)
    for place in range(3):
        assert found["m_both"][place] > found["m_purifier"][place]
        assert found["score_both"][place] > found["score_purifier"][place]
        assert found["cosine_0.5_both"][place] > found["cosine_0.5_purifier"][place] + 0.05
        assert found["prototypes_both"][place] >= found["prototypes_purifier"][place] - 3
    assert sum(path.stat().st_size for path in embedded("digits-booster").iterdir()) < 200_000

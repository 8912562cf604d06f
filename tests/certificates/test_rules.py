"""Stopping rules as people write them: parsing, canonical text, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.certificates.rules import GRID, KINDS, StopRule, parse_stop
from smoothcert.errors import InvalidInput, UnknownName


@pytest.mark.parametrize(
    ("text", "rule", "canonical"),
    [
        ("fixed", StopRule("fixed"), "fixed"),
        ("anytime", StopRule("anytime"), "anytime"),
        ("table", StopRule("table", GRID), "table:0,0.25,0.5,0.75,1"),
        ("table:0.50,0,.25,0.5", StopRule("table", (0.0, 0.25, 0.5)), "table:0,0.25,0.5"),
        ("table:-0, 1e1", StopRule("table", (0.0, 10.0)), "table:0,10"),
        ("radius:0.5", StopRule("radius", (0.5,)), "radius:0.5"),
        ("radius:0", StopRule("radius", (0.0,)), "radius:0"),
        ("curve", StopRule("curve", tolerance=0.02), "curve:0.02"),
        ("curve:1", StopRule("curve", tolerance=1.0), "curve:1"),
    ],
)
def test_what_is_read_and_how_it_is_written(text: str, rule: StopRule, canonical: str) -> None:
    assert parse_stop(text) == rule
    assert str(rule) == canonical
    assert parse_stop(canonical) == rule


def test_predictions_have_their_own_rules() -> None:
    assert parse_stop("predict", "predict") == StopRule("predict")
    assert str(parse_stop("fixed", "predict")) == "fixed"
    for text, task in [("predict", "certify"), ("table", "predict"), ("anytime", "predict")]:
        with pytest.raises(InvalidInput, match="decides something else"):
            parse_stop(text, task)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6))
def test_any_grid_survives_being_written(radii: list[float]) -> None:
    rule = parse_stop("table:" + ",".join(map(repr, radii)))
    assert rule.radii == tuple(sorted({radius + 0.0 for radius in radii}))
    assert parse_stop(str(rule)) == rule
    assert "-" not in str(rule).replace("e-", "")


@pytest.mark.parametrize(
    "text",
    [
        "table:",
        "table:a",
        "table:0;1",
        "table:-1",
        "table:nan",
        "table:0,inf",
        "radius",
        "radius:0.5,1",
        "radius:",
        "curve:0",
        "curve:1.5",
        "curve:nan",
        "curve:0.1,0.2",
        "curve:-0.1",
        "fixed:3",
        "fixed:",
        "anytime:0.5",
    ],
)
def test_numbers_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"Write"):
        parse_stop(text)


@pytest.mark.parametrize("text", ["tabel", "Table", "", "stop", "fixed "])
def test_unknown_names_list_the_known_ones(text: str) -> None:
    with pytest.raises(UnknownName) as caught:
        parse_stop(text)
    assert all(kind in str(caught.value) for kind in KINDS)

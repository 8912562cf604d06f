"""From a rule in words to the numbers of a design."""

from __future__ import annotations

import json

import pytest

from smoothcert.certificates.anytime import Anytime
from smoothcert.certificates.course import Design
from smoothcert.certificates.designs import design, usual
from smoothcert.certificates.gaussian import Bound
from smoothcert.certificates.grouped import Grouped
from smoothcert.certificates.rules import parse_stop
from smoothcert.certificates.staged import Fixed, TwoStage
from smoothcert.errors import InvalidInput


def build(
    stop: str, *, bound: Bound = "one", n: int = 2_000, sigma: float = 0.5, alpha: float = 0.001
) -> Design:
    task = "predict" if stop == "predict" else "certify"
    rule = parse_stop(stop, task)
    return design(
        rule, n0=usual(rule, task).n0, n=n, alpha=alpha, bound=bound, sigma=sigma, noise_error=3e-12
    )


@pytest.mark.parametrize(
    ("stop", "kind", "most"),
    [
        ("fixed", Fixed, 2_100),
        ("table", Grouped, 2_000),
        ("radius:0.5", Grouped, 2_000),
        ("predict", Grouped, 2_000),
        ("curve", TwoStage, 3_000),
        ("anytime", Anytime, 2_100),
    ],
)
@pytest.mark.parametrize("bound", ["one", "pair"])
def test_each_rule_has_its_design(stop: str, kind: type, most: int, bound: Bound) -> None:
    found = build(stop, bound=bound)
    assert type(found) is kind
    assert found.most == most
    assert json.loads(json.dumps(found.facts())) == found.facts(), "facts are plain data"


def test_the_usual_numbers() -> None:
    table, predict = build("table"), build("predict")
    assert isinstance(table, Grouped)
    assert isinstance(predict, Grouped)
    assert (table.numbers.gate, table.numbers.ratio, table.numbers.futility) == (0.05, 1.1, 0.01)
    assert (predict.numbers.gate, predict.radii) == (1.0, ())
    assert usual(parse_stop("fixed", "predict"), "predict").n == 1_000
    assert usual(parse_stop("fixed")).n == 100_000


@pytest.mark.parametrize("bound", ["one", "pair"])
@pytest.mark.parametrize(
    ("stop", "n"), [("radius:3", 100_000), ("table", 3), ("table:0", 16), ("radius:2", 2_000)]
)
def test_radii_out_of_reach_are_refused(stop: str, n: int, bound: Bound) -> None:
    if stop == "table:0":
        assert build(stop, n=17, bound=bound).most == 17
        with pytest.raises(InvalidInput, match="Raise n"):
            build(stop, n=15, bound=bound)
    else:
        with pytest.raises(InvalidInput, match="Raise n"):
            build(stop, n=n, bound=bound)


def test_radii_out_of_reach_are_left_out_of_a_table() -> None:
    found = build("table:0,0.25,3")
    assert isinstance(found, Grouped)
    assert found.decidable == (0.0, 0.25)
    assert len(found.facts()["boundaries"]) == 2

"""Certified accuracy tables on runs small enough to count by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from smoothcert.analysis import CertifiedAccuracy, certified_accuracy
from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.runlog.results import Outcome, Results

RADII = (0.25, 0.5)


def run(sigma: float, outcomes: list[tuple[int, int | None, float | None]], name: str = "") -> Results:
    """Outcomes as (label, predicted, radius)."""
    listed = tuple(Outcome(i, *outcome) for i, outcome in enumerate(outcomes))
    return Results(name or f"runs/{sigma:g}", listed, sigma, 0.001, 100, 10_000, description="digits: net")


# 4 images: certified far, certified to exactly .25, wrong though certified, abstained with label = nothing
SMALL = run(0.25, [(0, 0, 0.9), (1, 1, 0.25), (2, 0, 0.9), (3, None, 0.0)])
# clean accuracy lower, robust accuracy higher
LARGE = run(0.5, [(0, 0, 1.5), (1, 2, 0.1), (2, None, 0.0), (3, None, 0.0)])


def counts(table: CertifiedAccuracy) -> list[list[int | None]]:
    return [[share.count if share else None for share in row.shares] for row in table.rows]


def test_counts_reach_the_radius_itself_and_no_abstention_or_error_counts() -> None:
    table = certified_accuracy([SMALL, LARGE], (0.0, 0.25, 0.2500001, 0.9, 1.5, 1.6))
    assert counts(table) == [[2, 2, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]]
    assert {share.total for row in table.rows for share in row.shares if share} == {4}
    assert [row.clean and row.clean.count for row in table.rows] == [2, 1]


def test_rows_are_in_order_of_sigma_and_radii_ascend() -> None:
    table = certified_accuracy([LARGE, SMALL], (0.5, 0.25, 0.5))
    assert table.radii == RADII
    assert [row.run.sigma for row in table.rows] == [0.25, 0.5]


def test_best_has_the_clean_accuracy_of_the_chosen_sigma() -> None:
    best = certified_accuracy([SMALL, LARGE], (0.25, 1.0)).best().table(intervals=False)
    assert best.header == ("method", "r = 0.25", "r = 1")
    assert best.rows == (("digits: net", "(50.0)50.0", "(25.0)25.0"),)


def test_best_is_chosen_by_certified_not_clean_accuracy() -> None:
    clean = run(0.25, [(0, 0, 0.3), (1, 1, 0.3), (2, 2, 0.3), (3, None, 0.0)])
    robust = run(0.5, [(0, 0, 0.6), (1, None, 0.0), (2, None, 0.0), (3, None, 0.0)])
    rows = certified_accuracy([clean, robust], (0.25, 0.5)).best().rows
    assert [winner and winner.run.sigma for winner in rows[0].winners] == [0.25, 0.5]


def test_best_of_equals_has_the_better_clean_accuracy() -> None:
    worse = run(0.25, [(0, 0, 0.6), (1, None, 0.0), (2, None, 0.0), (3, None, 0.0)])
    better = run(0.5, [(0, 0, 0.6), (1, 1, 0.1), (2, None, 0.0), (3, None, 0.0)])
    rows = certified_accuracy([worse, better], (0.5,)).best().rows
    assert [winner and winner.run.sigma for winner in rows[0].winners] == [0.5]


def test_cells_show_interval_and_caption_says_what_was_measured() -> None:
    text = certified_accuracy([SMALL, LARGE], RADII).to_markdown()
    assert "50.0 [6.7, 93.3]" in text  # Clopper-Pearson for 2 of 4 at 95 %
    for fact in ("digits: net", "4 images", "n0 = 100", "n = 10,000", "alpha = 0.001", "95 %", "at least r"):
        assert fact in text
    assert "post hoc" not in text.lower()
    assert "Incomplete" not in text


def test_clean_column_only_where_radius_zero_is_missing() -> None:
    assert certified_accuracy([SMALL], (0.25,)).table().header == ("sigma", "clean", "r = 0.25")
    assert certified_accuracy([SMALL], (0.0, 0.25)).table().header == ("sigma", "r = 0", "r = 0.25")


def test_post_hoc_alpha_and_incomplete_runs_are_marked() -> None:
    marked = replace(SMALL, alpha=0.05, alpha_post_hoc=True, planned=100)
    text = str(certified_accuracy([marked], RADII))
    assert "alpha = 0.05 (post hoc)" in text
    assert "4 of 100 images" in text
    assert "Incomplete" in text
    assert "log breaks off" in str(certified_accuracy([replace(SMALL, truncated=True)], RADII))


@pytest.mark.parametrize(
    ("changes", "column", "shown"),
    [
        ({"alpha": 0.01}, "alpha", "0.01"),
        ({"alpha_post_hoc": True}, "alpha", "0.001 (post hoc)"),
        ({"n": 100}, "n", "100"),
        ({"n0": 10}, "n0", "10"),
        ({"description": "cifar10: net"}, "data and model", "cifar10: net"),
        ({"planned": 100}, "images", "4 of 100"),
        ({"outcomes": LARGE.outcomes[:3]}, "images", "3"),
    ],
)
def test_runs_that_differ_in_more_than_sigma_stay_apart(
    changes: dict[str, object], column: str, shown: str
) -> None:
    other = replace(LARGE, **changes)  # type: ignore[arg-type]
    table = certified_accuracy([SMALL, other], RADII)
    text = table.table()
    assert shown in [row[text.header.index(column)] for row in text.rows]
    assert "differ in more than sigma" in text.caption
    assert len(table.best().rows) == 2
    assert len(table.best(across_settings=True).rows) == 1


@pytest.mark.parametrize(
    ("descriptions", "shown", "caption"),
    [
        (("m: net, no denoiser", "m: net behind d"), {"no denoiser", "behind d"}, "m: net,"),
        (("m: net", "m: net behind d"), {"m: net", "m: net behind d"}, None),
        (
            ("a: r20:w?mean=0.5,0.4&std=1 on d", "a: r56:w?mean=0.5,0.4&std=1 on d"),
            {"r20:w on d", "r56:w on d"},
            "a:,",
        ),
        (("a: b:w?mean=0.5 on d", "a: b:w?mean=0.4 on d"), {"b:w?mean=0.5 on d", "b:w?mean=0.4 on d"}, "a:,"),
        (("x: net", "y: net"), {"x: net", "y: net"}, None),
    ],
)
def test_what_all_models_share_is_said_once_and_what_differs_is_never_dropped(
    descriptions: tuple[str, str], shown: set[str], caption: str | None
) -> None:
    runs = [replace(SMALL, description=one, name=str(k)) for k, one in enumerate(descriptions)]
    text = certified_accuracy(runs, RADII).table()
    where = text.header.index("data and model")
    assert {row[where] for row in text.rows} == shown
    if caption:
        assert f": {caption}" in text.caption


def test_equally_many_other_images_stay_apart() -> None:
    shifted = tuple(replace(outcome, index=outcome.index + 1) for outcome in LARGE.outcomes)
    table = certified_accuracy([SMALL, replace(LARGE, outcomes=shifted)], RADII)
    assert "cover different images" in table.caption
    assert "run" in table.table().header
    assert len(table.best().rows) == 2


def test_two_runs_of_one_sigma_are_told_apart_by_name() -> None:
    again = replace(SMALL, name="other/0.25")
    text = certified_accuracy([SMALL, again], RADII).table()
    assert text.header[:2] == ("sigma", "run")
    assert {row[1] for row in text.rows} == {"runs/0.25", "other/0.25"}


def test_unknown_facts_are_said_to_be_unknown() -> None:
    bare = Results("log", SMALL.outcomes)
    text = str(certified_accuracy([bare], RADII))
    assert "n0, n and alpha not stated by the source" in text
    assert "| ?" in text


def test_predictions_have_clean_accuracy_only() -> None:
    predictions = run(0.25, [(0, 0, None), (1, None, None)])
    table = certified_accuracy([predictions], (0.0, 0.25))
    assert counts(table) == [[1, None]]
    assert table.best().table().rows[0][-1] == "-"


def test_a_run_without_images_has_dashes() -> None:
    table = certified_accuracy([Results("run", (), 0.25, planned=100), SMALL], RADII)
    assert counts(table) == [[None, None], [2, 1]]
    assert "0 of 100" in table.to_markdown()


def test_csv_and_json_hold_the_counts_unrounded() -> None:
    table = certified_accuracy([SMALL, LARGE], RADII)
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [(line["sigma"], line["radius"], line["certified"], line["images"]) for line in lines] == [
        ("0.25", "0.25", "2", "4"),
        ("0.25", "0.5", "1", "4"),
        ("0.5", "0.25", "1", "4"),
        ("0.5", "0.5", "1", "4"),
    ]
    stored = json.loads(table.to_json())
    assert stored["rows"][0]["lower"] == pytest.approx(0.0675859, abs=1e-6)
    assert stored["rows"][0]["alpha_post_hoc"] is False
    best = json.loads(table.best().to_json())
    assert [(row["sigma"], row["certified"], row["clean_correct"]) for row in best["rows"]] == [
        (0.25, 2, 2),
        (0.25, 1, 2),
    ]
    assert table.best().to_csv().count("\n") == 3


def test_latex_escapes_what_users_wrote() -> None:
    name = r"50% of {A}_1 & B$x$ #2 ~^ \today [x] <b>"
    text = certified_accuracy([replace(SMALL, description=name)], RADII).to_latex()
    assert r"50\% of \{A\}\_1 \& B\$x\$ \#2" in text
    assert r"\textbackslash{}today {[}x{]} \textless{}b\textgreater{}" in text
    assert text.count("\\\\\n") == 2


def test_markdown_keeps_its_columns_whatever_users_wrote() -> None:
    other = replace(LARGE, description="a|b\n*c* `d` [e](f)")
    lines = certified_accuracy([SMALL, other], RADII).to_markdown().splitlines()
    assert r"a\|b \*c\* \`d\` [e]\(f)" in lines[3]
    assert len({line.replace(r"\|", "").count("|") for line in lines[:4]}) == 1


@pytest.mark.parametrize("radii", [(-0.1,), (float("nan"),), (float("inf"),)])
def test_impossible_radii_are_refused(radii: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInput, match="finite radii"):
        certified_accuracy([SMALL], radii)


def test_no_runs_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one run"):
        certified_accuracy([])


def test_against_a_published_table_of_best_rows() -> None:
    beside = certified_accuracy([SMALL, LARGE], (0.25, 1.5)).against("carlini2023:cifar10")
    assert beside.text.header[-5:] == ("r = 0.25", "r = 0.5", "r = 0.75", "r = 1", "r = 1.5")
    assert beside.text.rows[-2][-5:] == ("(91.2)79.3", "(91.2)65.5", "(87.3)48.7", "(81.5)35.5", "-")
    assert beside.text.rows[-1] == (
        "digits: net (this run)",
        "-",
        "-",
        "-",
        "(50.0)50.0",
        "-",
        "-",
        "-",
        "(25.0)25.0",
    )
    for fact in ("table 2", "CIFAR-10", "4 images", "alpha = 0.001"):
        assert fact in str(beside)
    assert json.loads(beside.to_json())["rows"][-1]["r = 0.25"] == "(50.0)50.0"
    assert beside.to_csv().splitlines()[-1].startswith("digits: net (this run),-,-,-,(50.0)50.0")
    assert "\\toprule" in beside.to_latex()


def test_against_a_published_table_per_sigma_in_per_cent() -> None:
    beside = certified_accuracy([SMALL, LARGE], (0.25,)).against("cohen2019:cifar10")
    assert [row[:2] for row in beside.text.rows[1:2]] == [("0.25", "60*")]
    assert [row[:2] for row in beside.text.rows[-2:]] == [
        ("0.25 (this run)", "50.0"),
        ("0.5 (this run)", "25.0"),
    ]


def test_against_tells_groups_apart() -> None:
    beside = certified_accuracy([SMALL, replace(LARGE, alpha=0.01)], (0.25,)).against("carlini2023:cifar10")
    assert [row[0] for row in beside.text.rows[-2:]] == [
        "digits: net (this run; alpha 0.001)",
        "digits: net (this run; alpha 0.01)",
    ]


def test_against_refuses_what_has_no_radii_and_unknown_names() -> None:
    table = certified_accuracy([SMALL], RADII)
    with pytest.raises(InvalidInput, match="not radii"):
        table.against("carlini2023:table4")
    with pytest.raises(UnknownName, match="Did you mean 'carlini2023:cifar10'"):
        table.against("carlini2023:cifar")

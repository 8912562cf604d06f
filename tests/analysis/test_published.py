"""Published tables: complete, as printed, and reproduced from the published logs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from smoothcert.analysis import acr, certified_accuracy, published
from smoothcert.errors import UnknownName
from smoothcert.runlog.results import Results
from smoothcert.runlog.tsv import read_tsv

DATA = Path(os.environ.get("SMOOTHCERT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
COHEN = DATA / "logs" / "cohen"
CONSISTENCY = DATA / "logs" / "consistency"
needs_logs = pytest.mark.skipif(not COHEN.is_dir(), reason=f"the published logs are not at {COHEN}")


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("table1", 12, 5),
        ("table2", 14, 4),
        ("table3", 4, 4),
        ("table4", 7, 3),
        ("table5", 4, 3),
        ("table7", 3, 6),
    ]
    + [(f"table6{letter}", 3, 5) for letter in "abcd"],
)
def test_every_row_of_the_dds_tables_is_there(name: str, rows: int, columns: int) -> None:
    table = published.load(f"carlini2023:{name}")
    assert (len(table.rows), len(table.columns)) == (rows, columns)
    assert {len(row.cells) for row in table.rows} == {columns}
    assert all(f"| {row.keys[0][1]}" in table.to_markdown() for row in table.rows)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("table1", 4359.9),
        ("table2", 6287.9),
        ("table3", 2210.7),
        ("table4", 963.7),
        ("table5", 813.4),
        ("table6a", 590.2),
        ("table6b", 766.4),
        ("table6c", 712.6),
        ("table6d", 789.5),
        ("table7", 621.3),
    ],
)
def test_no_figure_changes_unnoticed(name: str, total: float) -> None:
    """The sum of all figures, taken when every row was compared with the paper's text by machine."""
    cells = [cell for row in published.load(f"carlini2023:{name}").rows for cell in row.cells]
    assert sum((cell.value or 0) + (cell.clean or 0) for cell in cells) == pytest.approx(total)


def test_aliases_lead_to_tables_1_and_2() -> None:
    assert published.load("carlini2023:imagenet") is published.load("carlini2023:table1")
    assert published.load("carlini2023:cifar10") is published.load("carlini2023:table2")
    assert len(published.names()) == 14


def test_cells_are_read_as_printed() -> None:
    table = published.load("carlini2023:imagenet")
    ours, lee, pixel = table.rows[-1], table.rows[-2], table.rows[0]
    assert (ours.key("method"), ours.key("off_the_shelf"), ours.key("extra_data")) == ("Ours", "full", "yes")
    assert [(cell.clean, cell.value) for cell in ours.cells][:2] == [(82.8, 71.1), (77.1, 54.3)]
    assert [(cell.clean, cell.value) for cell in lee.cells] == [
        (None, 41),
        (None, 24),
        (None, 11),
        (None, None),
        (None, None),
    ]
    assert [cell.printed for cell in pixel.cells] == ["(33.0)16.0", "-", "-", "", ""]
    assert [cell.value for cell in published.load("cohen2019:cifar10").rows[0].cells] == [59.0, 0, 0, 0, 0, 0]


def test_disagreements_between_the_papers_tables_are_kept() -> None:
    cleans = {
        name: [row.cells[2].clean for row in published.load(f"carlini2023:{name}").rows][-1]
        for name in ("table2", "table3")
    }
    assert cleans == {"table2": 87.3, "table3": 91.2}
    assert published.load("carlini2023:table6d").rows[0].cells[0].value == 91.2
    assert any("87.3" in note for note in published.load("carlini2023:table2").notes)


@pytest.mark.parametrize(
    ("summary", "parts"), [("table1", ["table7"]), ("table3", ["table6a", "table6c", "table6b", "table6d"])]
)
def test_summary_tables_are_the_best_of_the_per_sigma_tables(summary: str, parts: list[str]) -> None:
    table = published.load(f"carlini2023:{summary}")
    for row, part in zip(table.rows[-len(parts) :], parts, strict=True):
        detail = published.load(f"carlini2023:{part}")
        for radius, cell in zip(table.radii, row.cells, strict=True):
            column = detail.radii.index(radius)
            best = max(detail.rows, key=lambda r: r.cells[column].value or 0)
            assert (cell.value, cell.clean) == (best.cells[column].value, best.cells[0].value)


def test_unknown_table_lists_what_exists() -> None:
    with pytest.raises(UnknownName, match=r"Did you mean 'carlini2023:table2'.*cohen2019:imagenet"):
        published.load("carlini2023:table22")


def cohen(data: str, sigmas: tuple[str, ...]) -> list[Results]:
    folder = COHEN / "certify" / data
    return [read_tsv(folder / f"noise_{s}/test/sigma_{s}", sigma=float(s)) for s in sigmas]


@needs_logs
@pytest.mark.parametrize(
    ("name", "data", "sigmas", "cells"),
    [
        ("cifar10", "cifar10/resnet110", ("0.12", "0.25", "0.50", "1.00"), 24),
        ("imagenet", "imagenet/resnet50", ("0.25", "0.50", "1.00"), 18),
    ],
)
def test_cohens_published_tables_come_out_of_the_logs(
    name: str, data: str, sigmas: tuple[str, ...], cells: int
) -> None:
    """Nearest hundredth of the fraction of the images in the log (427 in one of them), best marked."""
    lines = (COHEN / "published_tables" / f"vary_noise_{name}").read_text().splitlines()[2:]
    printed = [re.findall(r"([\d.]+)(<b>\*</b>)? \|", line.split("</b>|", 1)[1]) for line in lines]
    ours = published.load(f"cohen2019:{name}")
    table = certified_accuracy(cohen(data, sigmas), ours.radii)
    winners = table.best(across_settings=True).rows[0].winners
    matched = 0
    for i, row in enumerate(table.rows):
        for j, share in enumerate(row.shares):
            assert share is not None
            value, star = printed[i][j]
            assert f"{share.value:.2f}" == value
            assert (winners[j] is row) == bool(star)
            assert ours.rows[i].cells[j].printed == value + "*" * bool(star)
            matched += 1
    assert matched == cells


@needs_logs
def test_consistency_log_gives_the_published_figures() -> None:
    run = read_tsv(CONSISTENCY / "cifar10_resnet110_consistency_lbd20_sigma_0.25.tsv", sigma=0.25)
    assert f"{acr(run):.3f}" == "0.552"
    table = certified_accuracy([run], (0, 0.25, 0.5, 0.75)).table(intervals=False)
    assert table.rows == (("0.25", "75.8", "67.6", "58.1", "46.7"),)


@needs_logs
def test_taking_back_the_rounding_can_only_lower_accuracy() -> None:
    path = COHEN / "certify/cifar10/resnet110/noise_0.50/test/sigma_0.50"
    radii = [i / 100 for i in range(200)]
    stands, lowered = (
        certified_accuracy([read_tsv(path, radius_digits=d)], radii).rows[0].shares for d in (None, 3)
    )
    pairs = [(a.count, b.count) for a, b in zip(stands, lowered, strict=True) if a and b]
    assert len(pairs) == 200
    assert all(a >= b for a, b in pairs)
    assert any(a > b for a, b in pairs)


def test_reading_rooms_load_without_torch_or_matplotlib() -> None:
    heavy = "{'torch', 'matplotlib', 'scipy'}"
    code = f"import sys, smoothcert.analysis, smoothcert.report; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

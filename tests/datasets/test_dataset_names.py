"""Names and slices: what can be written, which examples it selects, what is refused and how."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from smoothcert.datasets import load
from smoothcert.errors import InvalidInput, SmoothcertError, UnknownName


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("digits", range(500)),
        ("digits:test", range(500)),
        (" digits:train ", range(1297)),
        ("digits:test[::5]", range(0, 500, 5)),
        ("digits:test[:100]", range(100)),
        ("digits[490:]", range(490, 500)),
        ("digits:test[ 10 : 20 : 3 ]", range(10, 20, 3)),
        ("digits:test[-3:]", range(497, 500)),
        ("digits:test[4::-2]", range(4, -1, -2)),
        ("digits:test[:]", range(500)),
        ("digits:test[495:100000]", range(495, 500)),
    ],
)
def test_selects_what_the_slice_says_and_keeps_indices(name: str, indices: range) -> None:
    dataset = load(name)
    assert [dataset[i].index for i in range(len(dataset))] == list(indices)


def test_a_slice_has_its_own_name_but_the_examples_keep_theirs() -> None:
    subset = load("digits:test[::5]")
    assert subset.name == "digits:test[::5]"
    assert subset[1].name == "digits:test-5"
    assert (subset.levels, subset.shape, len(subset.classes)) == (16, (1, 8, 8), 10)


@pytest.mark.parametrize("name", ["digit", "cifar1", "digits:val", "Digits", "__import__('os')"])
def test_unknown_names_list_what_exists(name: str) -> None:
    with pytest.raises(UnknownName, match="Known:"):
        load(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "digits:",
        "digits[",
        "digits]",
        "digits:test[5]",
        "digits:test[]",
        "digits:test[1:2:3:4]",
        "digits:test[a:b]",
        "digits:test[::0]",
        "digits:test[::1.5]",
        "digits:test[500:]",
        "digits:test[5:5]",
        "digits:test[::5][::5]",
        "digits:test[:__import__('os')]",
        "digits:test[:1_0]",
        "digits:test[:" + "9" * 5000 + "]",
        "digits:test:train",
        "digits:test[:²]",
    ],
)
def test_unreadable_or_empty_slices_are_refused(name: str) -> None:
    with pytest.raises(SmoothcertError):
        load(name)


def test_a_plain_index_says_what_to_write() -> None:
    with pytest.raises(InvalidInput, match=r"\[5\].*not start:stop:step"):
        load("digits:test[5]")


@pytest.mark.parametrize("position", [500, -501, 10**20])
def test_positions_outside_raise_index_error(position: int) -> None:
    with pytest.raises(IndexError):
        load("digits")[position]


def test_iterates_like_a_sequence() -> None:
    assert [e.index for e in load("digits:test[:3]")] == [0, 1, 2]  # type: ignore[attr-defined]
    assert load("digits")[-1].index == 499


def test_travels_to_a_worker_process() -> None:
    subset = load("digits:test[::50]")
    again = pickle.loads(pickle.dumps(subset))
    assert [again[i].name for i in range(len(again))] == [subset[i].name for i in range(len(subset))]


def test_a_data_set_of_ones_own_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "somebodys_data.py").write_text(
        "import numpy as np\nfrom smoothcert.datasets import ArrayDataset\n"
        "def make():\n    x = np.zeros((2, 1, 4, 4), dtype=np.uint8)\n"
        "    return ArrayDataset(x, np.array([0, 1]), levels=255, name='python:somebodys_data:make')\n"
        "ready, wrong = make(), 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert len(load("python:somebodys_data:make")) == len(load("python:somebodys_data:ready")) == 2
    with pytest.raises(InvalidInput, match="ArrayDataset"):
        load("python:somebodys_data:wrong")

"""Runs over a data set: equal to certifying image by image, resumable, bounded in memory, and suspicious."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine import targets

import smoothcert as sc
from smoothcert.datasets import ArrayDataset
from smoothcert.engine import prepare
from smoothcert.errors import (
    InvalidInput,
    ModelOutputError,
    RunFileError,
    RunLocked,
    SpecificationMismatch,
    UnsoundModel,
)
from smoothcert.runlog import tally_digest
from smoothcert.runlog.reading import merge
from smoothcert.runlog.specification import RuleSpec

RULE = {"n0": 50, "n": 300, "batch": 64, "workers": 1}


def smoothed(sigma: float = 0.5, **options: object) -> sc.SmoothedClassifier:
    return sc.SmoothedClassifier(targets.model(), sigma=sigma, **options)  # type: ignore[arg-type]


def test_a_run_is_what_certifying_image_by_image_gives(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = targets.images(5)
    found = sc.certify(smoothed(), data, tmp_path / "run", **RULE)
    merged = merge(row for row, _ in sc.open_run(tmp_path / "run").tallies())
    for position, result in enumerate(found.outcomes):
        example = data[position]
        alone = smoothed().certify(example.image, n0=50, n=300, example=example.index, batch=64)
        assert alone.votes == merged[example.index].tallies["estimation"]
        assert (alone.label, alone.radius) == (result.predicted, result.radius)


def test_a_batch_of_images_is_each_image_alone() -> None:
    data = targets.images(3)
    stack = np.stack([data[k].image for k in range(3)])
    together = smoothed().certify(stack, n0=20, n=100, example=[4, 8, 15], batch=32)
    alone = [
        smoothed().certify(data[k].image, n0=20, n=100, example=e, batch=32) for k, e in enumerate((4, 8, 15))
    ]
    assert list(together) == alone


@pytest.mark.parametrize("batch", [16, 128])
def test_the_batch_size_does_not_change_which_noise_is_drawn(tmp_path: Path, batch: int) -> None:
    """With a classifier free of rounding the counts are equal to the last one."""

    def brightest(noisy: torch.Tensor) -> torch.Tensor:
        return noisy.flatten(1)[:, :5].argmax(1)

    digests = set()
    for size in (32, batch):
        directory = tmp_path / f"run{size}"
        sc.certify(
            sc.SmoothedClassifier(brightest, sigma=0.5),
            targets.images(4),
            directory,
            n0=30,
            n=200,
            batch=size,
        )
        digests.add(tally_digest(sc.open_run(directory)))
    assert len(digests) == 1


@pytest.mark.parametrize("workers", [2, 5])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, workers: int) -> None:
    digests = set()
    for count in (1, workers):
        directory = tmp_path / f"run{count}"
        sc.certify(smoothed(), targets.images(6), directory, **(RULE | {"workers": count}))  # type: ignore[arg-type]
        digests.add(tally_digest(sc.open_run(directory)))
        assert sc.verify(sc.open_run(directory)).passed
    assert len(digests) == 1


def test_running_again_draws_nothing(tmp_path: Path) -> None:
    first = sc.certify(smoothed(), targets.images(4), tmp_path / "run", **RULE)
    rows = list(sc.open_run(tmp_path / "run").tallies())
    calls: list[int] = []
    again = smoothed()
    again.network.classifier.register_forward_hook(lambda *_: calls.append(1))
    assert sc.certify(again, targets.images(4), tmp_path / "run", **RULE) == first
    assert list(sc.open_run(tmp_path / "run").tallies()) == rows
    assert len(calls) == 5, "only the model check may call the network"


def broken() -> sc.SmoothedClassifier:
    """The same model, that fails at its twelfth call: the seventh batch, after the model check."""
    calls = itertools.count(1)

    def failing(module: torch.nn.Module, inputs: object) -> None:
        if next(calls) == 12:
            raise MemoryError("the device is full")

    found = smoothed()
    found.network.classifier.register_forward_pre_hook(failing)
    return found


def test_an_exception_in_the_model_loses_nothing_finished(tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        sc.certify(broken(), targets.images(4), tmp_path / "run", **RULE)
    assert sum(row.draws for row, _ in sc.open_run(tmp_path / "run").tallies()) == 6 * 64
    sc.certify(smoothed(), targets.images(4), tmp_path / "run", **RULE)
    sc.certify(smoothed(), targets.images(4), tmp_path / "whole", **RULE)
    assert tally_digest(sc.open_run(tmp_path / "run")) == tally_digest(sc.open_run(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"n": 301}, "rule.n: stored 300, asked for 301"),
        ({"alpha": 0.01}, "rule.alpha"),
        ({"seed": 1}, "noise.seed"),
    ],
)
def test_another_specification_is_refused_with_the_difference(
    tmp_path: Path, change: dict[str, float], field: str
) -> None:
    sc.certify(smoothed(), targets.images(4), tmp_path / "run", **RULE)
    with pytest.raises(SpecificationMismatch, match=field):
        sc.certify(smoothed(), targets.images(4), tmp_path / "run", **(RULE | change))  # type: ignore[arg-type]


def test_other_weights_data_or_sigma_are_refused(tmp_path: Path) -> None:
    sc.certify(smoothed(), targets.images(4), tmp_path / "run", **RULE)
    other = smoothed()
    with torch.no_grad():
        next(other.network.classifier.parameters()).add_(1e-7)
    with pytest.raises(SpecificationMismatch, match=r"classifier\.sha256"):
        sc.certify(other, targets.images(4), tmp_path / "run", **RULE)
    with pytest.raises(SpecificationMismatch, match=r"noise\.sigma: stored 0\.5, asked for 0\.25"):
        sc.certify(smoothed(0.25), targets.images(4), tmp_path / "run", **RULE)
    with pytest.raises(SpecificationMismatch, match=r"data\."):
        sc.certify(smoothed(), targets.images(5), tmp_path / "run", **RULE)


def test_execution_left_open_is_taken_from_the_stored_run(tmp_path: Path) -> None:
    sc.certify(smoothed(), targets.images(4), tmp_path / "run", **RULE)
    sc.certify(smoothed(), targets.images(4), tmp_path / "run", n0=50, n=300)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    from smoothcert.runlog.lock import RunLock

    sc.certify(smoothed(), targets.images(4), tmp_path / "run", **RULE)
    lock = RunLock(tmp_path / "run")
    with pytest.raises(RunLocked, match="another process"):
        sc.certify(smoothed(), targets.images(4), tmp_path / "run", **RULE)
    lock.release()
    sc.certify(smoothed(), targets.images(4), tmp_path / "run", **RULE)


def test_memory_is_bounded_by_the_batch_and_not_by_n(tmp_path: Path) -> None:
    peaks = []
    for n in (4_000, 40_000):
        rule = RuleSpec(task="certify", alpha=0.1, n0=10, n=n)
        job = prepare(smoothed(), targets.images(2), tmp_path / f"run{n}", rule, workers=2)
        tracemalloc.start()
        job.run(quiet=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    kept = (40_000 - 4_000) * targets.images(2)[0].image.size * 4  # bytes, if all draws of an image were kept
    assert (
        peaks[1] - peaks[0] < kept / 4
    )  # tallies wait up to a second for their commit, on a slow machine more


def test_a_model_left_in_training_mode_is_put_in_evaluation_mode(tmp_path: Path) -> None:
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Dropout(0.5), torch.nn.Linear(64, 5)
    )
    network.train()
    found = sc.certify(sc.SmoothedClassifier(network, sigma=0.5), targets.images(3), tmp_path / "run", **RULE)
    assert len(found.outcomes) == 3
    assert not any(module.training for module in network.modules())


def over_batch(noisy: torch.Tensor) -> torch.Tensor:
    flat = noisy.flatten(1)
    return (flat - flat.mean(0))[:, :5]


def barely_over_batch(noisy: torch.Tensor) -> torch.Tensor:
    flat = noisy.flatten(1)
    return (flat + 1e-6 * flat.mean(0))[:, :5]


def by_place(noisy: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(noisy)) % 5


class Forgetful:
    """Keeps what it is working on in itself, as many a script does: two threads get in each other's way."""

    def __call__(self, noisy: torch.Tensor) -> torch.Tensor:
        self.current = noisy.flatten(1)
        time.sleep(0.02)
        return self.current[:, :5]


def test_models_that_threads_confuse_are_refused_unless_there_is_one(tmp_path: Path) -> None:
    confused = sc.SmoothedClassifier(Forgetful(), sigma=0.5)
    with pytest.raises(UnsoundModel, match="several threads"):
        sc.certify(confused, targets.images(3), tmp_path / "run", **(RULE | {"workers": 2}))  # type: ignore[arg-type]
    sc.certify(confused, targets.images(1), tmp_path / "run", **RULE)


def by_chance(noisy: torch.Tensor) -> torch.Tensor:
    return torch.randint(0, 5, (len(noisy),))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("model", "why"),
    [
        (over_batch, "other images"),
        (barely_over_batch, "other images"),
        (by_place, "place in the batch"),
        (by_chance, "two ways"),
    ],
)
def test_models_that_void_the_guarantee_are_refused(
    tmp_path: Path, model: object, why: str, workers: int
) -> None:
    with pytest.raises(UnsoundModel, match=why):
        sc.certify(
            sc.SmoothedClassifier(model, sigma=0.5),
            targets.images(3),
            tmp_path / "run",
            **(RULE | {"workers": workers}),
        )  # type: ignore[arg-type]
    assert not (tmp_path / "run" / "run.db").exists()


@pytest.mark.parametrize(
    "output",
    [
        lambda x: x,
        lambda x: x.flatten(1)[:-1],
        lambda x: x.flatten(1)[:, :1],
        lambda x: None,
        lambda x: -torch.ones(len(x), dtype=torch.long),
    ],
)
def test_wrong_outputs_are_reported(tmp_path: Path, output: object) -> None:
    with pytest.raises(ModelOutputError):
        sc.certify(sc.SmoothedClassifier(output, sigma=0.5), targets.images(3), tmp_path / "run", **RULE)  # type: ignore[arg-type]


def test_nonfinite_outputs_abstain_and_are_reported(tmp_path: Path) -> None:
    def broken(noisy: torch.Tensor) -> torch.Tensor:
        return noisy.flatten(1)[:, :5] * torch.nan

    found = sc.certify(sc.SmoothedClassifier(broken, sigma=0.5), targets.images(3), tmp_path / "run", **RULE)
    assert all(o.predicted is None for o in found.outcomes)
    checked = {check.name: check for check in sc.verify(sc.open_run(tmp_path / "run")).checks}
    assert "1050 draws with a non-finite answer" in checked["answers"].detail


@pytest.mark.parametrize(
    "options",
    [
        {"n": 0},
        {"n0": 0},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"bound": "both"},
        {"stop": "table:no"},
        {"stop": "radius"},
        {"stop": "predict"},
        {"stop": "table"},  # with RULE's n0: it sets no draws aside
        {"futility": 0.01},
        {"label_aware": True},
        {"n": 10**10},
        {"batch": 1},
        {"seed": -1},
    ],
)
def test_impossible_rules_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        sc.certify(smoothed(), targets.images(2), tmp_path / "run", **(RULE | options))  # type: ignore[arg-type]


def test_two_images_with_one_index_are_refused(tmp_path: Path) -> None:
    class Twice:
        name, levels, shape, classes = "twice", 255, (1, 8, 8), targets.CLASSES

        def __len__(self) -> int:
            return 2

        def __getitem__(self, position: int) -> object:
            return targets.images(1)[0]

    with pytest.raises(InvalidInput, match="one index"):
        sc.certify(smoothed(), Twice(), tmp_path / "run", **RULE)  # type: ignore[arg-type]


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFileError, match="cannot be created"):
        sc.certify(smoothed(), targets.images(2), tmp_path / "file" / "run", **RULE)


def test_levels_of_the_data_must_agree() -> None:
    data = ArrayDataset(
        np.zeros((2, 1, 8, 8), dtype=np.uint8),
        np.zeros(2, dtype=np.int64),
        levels=16,
        name="z",
        classes=("a", "b"),
    )
    with pytest.raises(InvalidInput, match="wrong grid"):
        smoothed(levels=255).noise_for(data.levels)


RULES = {
    "table": {"stop": "table:0,0.1,0.2", "n": 800},
    "pair": {"stop": "table:0,0.1,0.2", "n": 800, "bound": "pair"},
    "radius": {"stop": "radius:0.1", "n": 800},
    "curve": {"stop": "curve:0.1", "n0": 100, "n": 800},
    "anytime": {"stop": "anytime", "n0": 40, "n": 500},
    "label-aware": {"stop": "table:0,0.1,0.2", "n": 800, "label_aware": True},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch", [40, 64])
def test_stopping_rules_do_not_depend_on_workers(tmp_path: Path, rule: str, batch: int) -> None:
    digests = set()
    for workers in (1, 3):
        directory = tmp_path / f"run{workers}"
        options = RULES[rule] | {"batch": batch, "workers": workers}
        found = sc.certify(smoothed(), targets.images(9), directory, **options)  # type: ignore[arg-type]
        assert len(found.outcomes) == 9
        run = sc.open_run(directory)
        digests.add(tally_digest(run))
        checked = sc.verify(run)
        assert checked.passed, checked.checks
        assert sum(o.draws or 0 for o in found.outcomes) == sum(row.draws for row, _ in run.tallies())
    assert len(digests) == 1


@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"label-aware"}))
def test_a_stopped_run_is_the_image_alone(tmp_path: Path, rule: str) -> None:
    """Votes under a rule are those of the same named draws certified one image at a time."""
    options, data = RULES[rule], targets.images(4)
    found = sc.certify(smoothed(), data, tmp_path / "run", batch=64, workers=2, **options)  # type: ignore[arg-type]
    for position, result in enumerate(found.outcomes):
        example = data[position]
        alone = smoothed().certify(example.image, example=example.index, batch=64, **options)
        assert (alone.label, alone.radius, alone.n0 + alone.n) == (
            result.predicted,
            result.radius,
            result.draws,
        )


@pytest.mark.parametrize("rule", ["table", "curve", "anytime"])
def test_an_exception_under_a_rule_loses_nothing_finished(tmp_path: Path, rule: str) -> None:
    options = RULES[rule] | {"batch": 64, "workers": 1}
    with pytest.raises(MemoryError):
        sc.certify(broken(), targets.images(9), tmp_path / "run", **options)  # type: ignore[arg-type]
    assert sc.verify(sc.open_run(tmp_path / "run")).passed
    assert sum(row.draws for row, _ in sc.open_run(tmp_path / "run").tallies()) > 200
    for directory in ("run", "whole"):
        sc.certify(smoothed(), targets.images(9), tmp_path / directory, **options)  # type: ignore[arg-type]
    assert tally_digest(sc.open_run(tmp_path / "run")) == tally_digest(sc.open_run(tmp_path / "whole"))


def test_anytime_goes_on_with_more_draws(tmp_path: Path) -> None:
    """Raising n continues the run; the result is that of a run with the larger n from the start."""
    rule = {"stop": "anytime", "n0": 40, "batch": 32}
    first = sc.certify(smoothed(), targets.images(4), tmp_path / "run", n=300, **rule)  # type: ignore[arg-type]
    more = sc.certify(smoothed(), targets.images(4), tmp_path / "run", n=900, **rule)  # type: ignore[arg-type]
    assert {o.draws for o in first.outcomes} == {340}
    assert {o.draws for o in more.outcomes} == {940}
    sc.certify(smoothed(), targets.images(4), tmp_path / "whole", n=900, **rule)  # type: ignore[arg-type]
    assert tally_digest(sc.open_run(tmp_path / "run")) == tally_digest(sc.open_run(tmp_path / "whole"))
    checked = sc.verify(sc.open_run(tmp_path / "run"))
    assert checked.passed
    assert "so far at most 900" in checked.claim
    again = sc.certify(smoothed(), targets.images(4), tmp_path / "run", n=300, **rule)  # type: ignore[arg-type]
    assert {o.draws for o in again.outcomes} == {940}, "a smaller n takes nothing back"


def test_a_rule_without_draws_for_its_radius_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="even unanimous votes"):
        sc.certify(smoothed(), targets.images(2), tmp_path / "run", stop="radius:1.5", n=1_000)


def test_stored_boundaries_are_checked(tmp_path: Path) -> None:
    import sqlite3

    sc.certify(smoothed(), targets.images(3), tmp_path / "run", batch=64, **RULES["table"])  # type: ignore[arg-type]
    with sqlite3.connect(tmp_path / "run/run.db") as base:
        text = base.execute("SELECT value FROM spec WHERE key = 'design'").fetchone()[0]
        base.execute("UPDATE spec SET value = ? WHERE key = 'design'", (text.replace("[32", "[16", 1),))
    failed = [check.name for check in sc.verify(sc.open_run(tmp_path / "run")).checks if not check.passed]
    assert failed == ["looks and boundaries"]

"""A Ray cluster evaluates what threads would, to the bit; what cannot work is one clear error."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engine import targets
from tests.faults.harness import Run, Whole, refused, stored

import smoothcert as sc
from smoothcert.engine import RayCluster, crew
from smoothcert.engine.cluster import connect
from smoothcert.errors import (
    DataError,
    InvalidInput,
    MissingExtra,
    ModelOutputError,
    WorkerRefused,
    WorkersLost,
)
from smoothcert.runlog import tally_digest


def on(cluster: Any, **options: Any) -> RayCluster:
    return RayCluster(address=cluster.address, **options)


def same(place: Path, rule: str, first: Any, second: Any) -> None:
    digests = []
    for name, options in (("first", first), ("second", second)):
        targets.run(place / name, rule=rule, **options)
        run = sc.open_run(place / name)
        assert sc.verify(run).passed
        digests.append(tally_digest(run))
    assert digests[0] == digests[1]


@pytest.mark.parametrize(("rule", "workers"), [("table", 3), ("encode", 2)])
def test_the_same_run_to_the_bit(cluster: Any, tmp_path: Path, rule: str, workers: int) -> None:
    same(tmp_path, rule, {"workers": 1}, {"executor": on(cluster), "workers": workers})


@pytest.mark.faults_long
@pytest.mark.parametrize("rule", targets.RULES)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_rule_with_any_number_of_workers(cluster: Any, tmp_path: Path, rule: str, workers: int) -> None:
    same(tmp_path, rule, {"workers": 2}, {"executor": on(cluster), "workers": workers})


def test_models_loaded_where_they_are_used_and_switches_of_torch_travel(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader says what the driver's process has been told; without the switches the worker is refused."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        model = targets.Choosy(targets.model())
        cluster_ = on(cluster, load=targets.load_choosy)
        same(
            tmp_path,
            "fixed",
            {"classifier": model},
            {"classifier": model, "executor": cluster_, "workers": 1},
        )
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("bug", "kind"), [(False, ModelOutputError), (True, ZeroDivisionError)])
def test_what_a_model_does_wrong_reaches_the_caller(
    cluster: Any, tmp_path: Path, bug: bool, kind: type[Exception]
) -> None:
    """As the error it is, with everything that was answered before committed; mended, the run goes on."""
    trap, data = tmp_path / "trap", targets.images(white=5)
    trap.touch()
    model = targets.Confused(targets.model(), trap, bug=bug)
    options: dict[str, Any] = {"data": data, "classifier": model, "workers": 1}
    with pytest.raises(kind):
        targets.run(tmp_path / "run", executor=on(cluster), **options)
    found = Run.of(tmp_path / "run").draws
    assert all(found[example, "estimation", 1_400] for example in range(5))
    assert not found[5, "estimation", 700]
    trap.unlink()
    targets.run(tmp_path / "run", **options)
    targets.run(tmp_path / "whole", **options)
    Whole(Run.of(tmp_path / "whole")).matches(tmp_path / "run", lambda name, value: None)


def test_images_with_other_pixels_on_a_node_are_refused(cluster: Any, tmp_path: Path) -> None:
    base = targets.images()
    pixels = np.stack([base[k].image for k in range(len(base))])
    data = targets.OtherElsewhere(pixels, np.arange(12) % 5, levels=255, classes=targets.CLASSES)
    data.home = os.getpid()
    refused(
        lambda: targets.run(tmp_path / "run", data=data, executor=on(cluster), workers=1),
        DataError,
        "image 5",
        "is not the one this run is about",
        "on every machine",
    )
    assert {example for example, *_ in stored(tmp_path / "run")} == set(range(5))


def test_another_version_of_smoothcert_is_refused(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = sc.__version__
    monkeypatch.setattr(sc, "__version__", "0.0.other")
    text = refused(
        lambda: targets.run(tmp_path / "run", executor=on(cluster), workers=1), WorkerRefused, "0.0.other"
    )
    assert f"smoothcert {here}" in text


class Locked(torch.nn.Module):
    """Holds what cannot travel, as a model with an open connection or a session does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.lock = targets.model(), threading.Lock()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.inner(images)
        return answers


class Sealed(Locked):
    def __reduce__(self) -> Any:
        raise RuntimeError("this object does not travel")


@pytest.mark.parametrize("model", [Locked, Sealed])
def test_a_model_that_cannot_travel_is_told_how(
    cluster: Any, tmp_path: Path, model: Callable[[], torch.nn.Module]
) -> None:
    refused(
        lambda: targets.run(tmp_path / "run", classifier=model(), executor=on(cluster), workers=1),
        InvalidInput,
        "this model: cannot be sent",
        "RayCluster(load=function)",
    )


def test_rays_client_is_refused() -> None:
    refused(lambda: connect("ray://head:10001", 1), InvalidInput, "auto", "ray job submit")


def test_without_ray_the_install_line_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(
        lambda: targets.run(tmp_path / "run", executor="ray"), MissingExtra, 'pip install "smoothcert[ray]"'
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "--workers 8"),
        ({"workers": "many"}, "--workers 8"),
        ({"gpus": 0.0}, "--gpus-per-worker 1"),
        ({"gpus": -1.0}, "--gpus-per-worker 1"),
        ({"gpus": "all"}, "--gpus-per-worker 1"),
    ],
)
def test_numbers_that_cannot_work(options: dict[str, Any], said: str) -> None:
    refused(lambda: RayCluster(**options), InvalidInput, said)


def test_gpus_for_a_run_on_the_cpu_are_refused(tmp_path: Path) -> None:
    executor: Any = RayCluster(gpus=0.5)
    refused(
        lambda: targets.run(tmp_path / "run", executor=executor, workers=None), InvalidInput, "--device cuda"
    )


def nothing() -> None:
    """Makes no model."""


def test_a_loader_that_makes_no_model_is_told_so(cluster: Any, tmp_path: Path) -> None:
    loaded = RayCluster(address=cluster.address, workers=1, load=nothing)  # type: ignore[arg-type]
    executor: Any = loaded
    refused(
        lambda: targets.run(tmp_path / "run", executor=executor, workers=None),
        InvalidInput,
        "load=, which returned NoneType",
    )


def test_a_cluster_without_its_head_ends_the_run(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Ray ends the process; what was answered is kept, and the run goes on elsewhere."""
    monkeypatch.setattr(crew.Pulse, "lost", lambda _: bool(stored(tmp_path / "run")))
    words = ("head of the cluster", "run the same command")
    refused(
        lambda: targets.run(tmp_path / "run", executor=on(cluster), workers=1, slow=0.004),
        WorkersLost,
        *words,
    )
    assert stored(tmp_path / "run")
    monkeypatch.undo()
    targets.run(tmp_path / "run", slow=0.004)
    targets.run(tmp_path / "whole", slow=0.004)
    Whole(Run.of(tmp_path / "whole")).matches(tmp_path / "run", lambda name, value: None)

"""Published layouts on disk, written once a session: the real images where they are, random ones elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests import realdata
from tests.datasets.cifar_files import Batch, pack_cifar, write_cifar


@pytest.fixture(autouse=True)
def no_data_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what a test names is found."""
    monkeypatch.delenv("SMOOTHCERT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def real_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the real CIFAR-10, in its python layout."""
    root = tmp_path_factory.mktemp("real")
    realdata.write_cifar10_python(root)
    return root


@pytest.fixture(scope="session")
def batch() -> Batch:
    """10,000 images of random pixels, with labels of both data sets."""
    random = np.random.default_rng(3)
    rows = random.integers(0, 256, (10_000, 3072), dtype=np.uint8)
    return Batch(rows, random.integers(0, 10, 10_000), random.integers(0, 100, 10_000))


@pytest.fixture(scope="session")
def cifar(tmp_path_factory: pytest.TempPathFactory, batch: Batch) -> Path:
    """A root with the test splits of both data sets in every layout, each in a folder of its own."""
    root = tmp_path_factory.mktemp("cifar")
    write_cifar(root, batch)
    return root


@pytest.fixture(scope="session")
def packed(cifar: Path) -> Path:
    """The same root, with the packed layouts beside the others."""
    pack_cifar(cifar)
    return cifar

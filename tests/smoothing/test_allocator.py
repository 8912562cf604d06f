"""Freed memory is kept: a batch needs no new pages, and the user's own settings are left alone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, numpy as np, torch
from smoothcert.smoothing.network import Network
torch.set_num_threads(1)
layers = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.Flatten(), torch.nn.Linear(64 * 900, 4))
network = Network(layers, None, 0.5, "cpu")
noisy = np.random.default_rng(0).random((64, 3, 32, 32)).astype(np.float32)
for _ in range(3):
    network.labels(noisy)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    network.labels(noisy)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""


def faults(**environment: str) -> int:
    """Page faults of one batch whose activations are 15 MB, in a process of its own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=clean | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_batches_reuse_their_pages_unless_the_user_decided_otherwise() -> None:
    assert faults() < 100
    assert faults(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > 1_000

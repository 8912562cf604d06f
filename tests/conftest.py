"""What test modules of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A Ray cluster on this machine: one node with six logical cores, to which others can be added.

    It takes seconds to start, so all tests of a process share it.
    """
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    import ray

    place = str(Path(__file__).parent.parent)  # tests hand out functions and classes of their own modules
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), place]))
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    made = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 6, "include_dashboard": False, "object_store_memory": 10**8},
    )
    yield made
    ray.shutdown()
    made.shutdown()

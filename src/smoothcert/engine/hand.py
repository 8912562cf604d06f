"""What runs in a worker's process of a Ray cluster: it gets the run once, then evaluates what it is given.

Importing this needs Ray's package only where a worker is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

from smoothcert.engine.bench import Bench, Places, Shipment
from smoothcert.engine.evaluate import Work
from smoothcert.errors import SmoothcertError
from smoothcert.runlog.store import TallyRow

_KEPT_PLANS = 64


class Reply(NamedTuple):
    """What a worker says: rows, or an error of ours; and where it is."""

    rows: list[TallyRow]
    error: SmoothcertError | None
    place: str


class Hand:
    """A worker process (the actor): gets the run once, then evaluates what it is given."""

    def __init__(self) -> None:
        self._bench: Bench | None = None
        self._plans: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, shipment: Shipment) -> Reply:
        """Load the models and prove that they answer as the driver's do."""
        try:
            self._bench = Bench(shipment)
        except SmoothcertError as error:
            return Reply([], error, _place())
        return Reply([], None, _place())

    def rows(self, task: Work, places: Places) -> Reply:
        """Evaluate a batch; its plans come as references."""
        assert self._bench is not None, "work before the run was there"
        try:
            plans = {example: self._plan(reference) for example, reference in task.plans.items()}
            return Reply(self._bench.rows(task._replace(plans=plans), places), None, _place())
        except SmoothcertError as error:
            return Reply([], error, _place())

    def _plan(self, reference: Any) -> Any:
        """A plan by its reference, fetched once; ``None`` where there is none yet."""
        import ray

        if reference is None:
            return None
        with self._lock:
            name = reference.hex()
            if name not in self._plans:
                self._plans[name] = ray.get(reference)
                while len(self._plans) > _KEPT_PLANS:
                    self._plans.popitem(last=False)
            self._plans.move_to_end(name)
            return self._plans[name]


def _place() -> str:
    import ray

    address: Any = ray.util.get_node_ip_address  # untyped
    return str(address())

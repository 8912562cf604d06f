"""The workers of one run in a Ray cluster: started, given work, replaced when they die, sent away if refused.

Importing this needs Ray's package only when a crew is made.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from smoothcert.engine.bench import Shipment
from smoothcert.engine.dispatch import Dispatch, Item
from smoothcert.engine.evaluate import Work
from smoothcert.engine.execute import Queue
from smoothcert.engine.hand import Hand, Reply
from smoothcert.engine.pulse import Pulse
from smoothcert.errors import (
    CheckpointError,
    DataError,
    InvalidInput,
    SmoothcertError,
    WorkerRefused,
    WorkersLost,
)
from smoothcert.runlog.roster import Roster
from smoothcert.runlog.store import TallyRow

WAIT = 0.5  # seconds without an answer after which progress is shown and signals are obeyed
PATIENCE = 60.0  # seconds until somebody who waits for a first worker is told what it waits for
GRACE = 20.0  # seconds a stopped run waits for the batches that are out; a batch queue kills after 30
MOST_FAILURES = 3  # deaths of a worker in a row, without an answer between, after which it is not replaced
_PREAMBLE = "The actor is dead because its worker process has died. "
_OF_THE_NODE = (WorkerRefused, DataError, CheckpointError)  # another node may well do
_UNSENDABLE = (TypeError, AttributeError, OSError, RuntimeError, pickle.PicklingError)
_ASKED = ("CPU", "GPU")
_LOG = logging.getLogger("smoothcert")


@dataclass
class Post:
    """One of the run's workers: the process that holds it now, and what is known of it.

    Attributes:
        actor: Ray's handle. ready: whether it has loaded the run. failures: deaths in a row.
        draws, since: what it answered since it was ready, for the progress line.
    """

    actor: Any
    ready: bool = False
    failures: int = 0
    place: str = "a machine of the cluster"
    draws: int = 0
    since: float = 0.0
    calls: dict[Any, Item | None] = field(default_factory=dict)


class Crew:
    """All workers of a run.

    Args:
        shipment: the run. examples: its images. processes, lanes: workers, and batches at a time of each.
        resources: what Ray sets aside for each.
    """

    def __init__(
        self,
        shipment: Shipment,
        examples: Roster,
        processes: int,
        lanes: int,
        resources: Mapping[str, float],
    ) -> None:
        import ray

        self._ray, self._lanes = ray, lanes
        self._examples = examples
        hand: Any = ray.remote(Hand)
        self._hand = hand.options(max_concurrency=lanes, scheduling_strategy="SPREAD", **resources)
        try:
            self._shipment = ray.put(shipment)
        except _UNSENDABLE as error:
            raise self._unsendable(shipment, error) from error
        self._plans: dict[int, tuple[Any, Any]] = {}
        self._reasons: list[str] = []
        self._closed = False
        self._resources, self._started, self._told = resources, time.monotonic(), False
        self._posts = dict(enumerate(Post(self._hand.remote()) for _ in range(processes)))
        for post in self._posts.values():
            self._begin(post)

    def _unsendable(self, shipment: Shipment, error: Exception) -> InvalidInput:
        """What of a run cannot travel, and why, without Ray's dump of all of it."""
        what = "this model or data set"
        for name, part in (("this data set", shipment.data), ("this model", shipment.smoothed)):
            if found := self._refusal(part):
                what, error = name, found
                break
        instead = "Pass executor=RayCluster(load=function), a function of a module that makes the model"
        why = f"cannot be sent to other processes ({str(error).splitlines()[0][:200]})"
        return InvalidInput(what, why, instead if "model" in what else "Give one that reads its files itself")

    def _refusal(self, part: Any) -> Exception | None:
        """Why something cannot travel."""
        dumps: Any = self._ray.cloudpickle.dumps  # untyped
        try:
            dumps(part)
        except _UNSENDABLE as error:
            return error
        return None

    def answers(self, queue: Queue, first: Work) -> Iterator[list[TallyRow]]:
        """The rows of each batch once, in the order of the answers, until the queue has no more.

        ``first`` was taken from it to see whether workers are needed at all.

        Raises:
            WorkersLost: workers die again and again. WorkerRefused: none is left that may answer.
            SmoothcertError: what a model did wrong, wherever that was.
        """
        desk, closed = Dispatch(queue, self._lanes, [first]), None
        context: Any = self._ray.get_runtime_context  # untyped
        pulse = Pulse(context().gcs_address)
        while True:
            if pulse.lost():
                self._posts = {}  # nobody is left who could be asked to end them
                raise WorkersLost(
                    "the head of the cluster does not answer any more",
                    "without it no worker can be reached",
                    "Nothing that was answered is lost. Start the cluster again; then run the same command "
                    "to continue",
                )
            if queue.closed:
                desk.close()
                self._closed = True
                closed = closed or time.monotonic()
                if time.monotonic() - closed > GRACE:
                    return
            self._hand_out(desk)
            if not desk.busy:
                return
            calls = {call: number for number, post in self._posts.items() for call in post.calls}
            found, _ = self._ray.wait(list(calls), num_returns=1, timeout=WAIT)
            if found:
                found, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
            rows: list[TallyRow] = []
            failure: Exception | None = None
            for call in found:
                if (number := calls[call]) in self._posts and call in self._posts[number].calls:
                    try:
                        rows += self._heard(desk, number, call)
                    except Exception as error:  # what came with it still counts
                        failure = failure or error
            queue.answered(rows)
            self._forget_plans(queue)
            self._say_what_is_waited_for()
            yield rows
            if failure is not None:
                raise failure

    def note(self) -> str:
        """``8 workers, 1,204 draws/s each (slowest 830 on 10.0.0.3)``."""
        ready = [post for post in self._posts.values() if post.ready]
        speeds = sorted((self._speed(post), post.place) for post in ready if post.draws)
        count = (
            f"{len(ready)} workers"
            if len(ready) == len(self._posts)
            else (f"{len(ready)} of {len(self._posts)} workers")
        )
        if not speeds:
            return count
        mean = sum(speed for speed, _ in speeds) / len(speeds)
        slowest = f" (slowest {speeds[0][0]:,.0f} on {speeds[0][1]})" if len(speeds) > 1 else ""
        return f"{count}, {mean:,.0f} draws/s each{slowest}"

    def dismiss(self) -> None:
        """End all worker processes; the cluster stays."""
        for post in self._posts.values():
            self._ray.kill(post.actor)
        self._posts = {}

    def _hand_out(self, desk: Dispatch) -> None:
        """Fill the hands of everybody who is ready, those with least to do first."""
        given = True
        while given:
            given = False
            for number in sorted(self._posts, key=desk.load):
                post = self._posts[number]
                if post.ready and (item := desk.give(number, time.monotonic())) is not None:
                    post.calls[self._call(post, item)] = item
                    given = True

    def _call(self, post: Post, item: Item) -> Any:
        task = item.work
        places = {part.segment.example: self._examples.place(part.segment.example) for part in task.batch}
        references = {example: self._sent(example, plan) for example, plan in task.plans.items()}
        return post.actor.rows.remote(task._replace(plans=references), places)

    def _sent(self, example: int, plan: Any) -> Any:
        """A reference to an image's plan, which travels once to each machine and not with each batch."""
        if plan is None:
            return None
        if example not in self._plans or self._plans[example][0] is not plan:
            self._plans[example] = (plan, self._ray.put(plan))
        return self._plans[example][1]

    def _say_what_is_waited_for(self) -> None:
        """Once, where no worker has begun for long: the cluster may have no room for any."""
        if self._told or any(post.ready for post in self._posts.values()):
            return
        if time.monotonic() - self._started > PATIENCE:
            self._told = True
            free: Any = self._ray.available_resources  # untyped
            _LOG.warning(
                "no worker has begun yet: each asks for %s, and the cluster has %s free. Waiting for them",
                dict(self._resources),
                {kind: number for kind, number in free().items() if kind in _ASKED},
            )

    def _forget_plans(self, queue: Queue) -> None:
        for example in [example for example in self._plans if queue.finished(example)]:
            del self._plans[example]

    def _begin(self, post: Post) -> None:
        post.calls[post.actor.begin.remote(self._shipment)] = None

    def _heard(self, desk: Dispatch, number: int, call: Any) -> list[TallyRow]:
        """What one call brought: rows that count, or news of its worker."""
        post = self._posts[number]
        try:
            reply: Reply = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            if post.calls[call] is not None:
                raise
            self._send_away(desk, number, _said(error))  # it could not even read the run
            return []
        except self._ray.exceptions.RayError as error:  # the process, its node, or an answer that lay there
            self._died(desk, number, _said(error))
            return []
        item = post.calls.pop(call)
        post.place = reply.place
        if reply.error is not None:
            if not isinstance(reply.error, _OF_THE_NODE):
                raise reply.error
            post.calls[call] = item
            self._send_away(desk, number, str(reply.error), reply.error)
            return []
        if item is None:
            post.ready, post.since = True, time.monotonic()
            return []
        post.failures = 0
        seconds = sum(row.seconds for row in reply.rows)
        if not desk.answered(item.number, number, time.monotonic(), seconds):
            return []
        post.draws += sum(row.draws for row in reply.rows)
        return reply.rows

    def _died(self, desk: Dispatch, number: int, why: str) -> None:
        """Give its batches back and start another process in its place, a few times."""
        post = self._posts[number]
        post.calls.clear()
        post.failures, post.ready, post.draws = post.failures + 1, False, 0
        _LOG.warning("a worker on %s died (%s)", post.place, why)
        self._ray.kill(post.actor)  # one that only lost touch must not hold its place
        over = [f" over draws {item}" for item in desk.left(number, why)]
        self._reasons.append(f"a worker on {post.place} died{''.join(over[:1])}: {why}")
        if self._closed:
            return
        if post.failures >= MOST_FAILURES:
            self._leave(number)
        else:
            post.actor = self._hand.remote()
            self._begin(post)

    def _send_away(self, desk: Dispatch, number: int, why: str, error: SmoothcertError | None = None) -> None:
        """A worker that may not answer for this run; others may."""
        desk.left(number, None)
        self._ray.kill(self._posts[number].actor)
        _LOG.warning("refused: %s", why)
        self._reasons.append(why)
        self._leave(number, error)

    def _leave(self, number: int, error: SmoothcertError | None = None) -> None:
        """One post fewer; an error when it was the last."""
        del self._posts[number]
        if self._posts:
            return
        if error is not None:
            raise error
        raise WorkersLost(
            "no worker is left",
            "all of them died again and again or were refused. The last: " + "; ".join(self._reasons[-2:]),
            "Nothing that was answered is lost. If memory ran out, start fewer workers on a node (--workers) "
            "or a new run with a smaller --batch; then run the same command to continue",
        )

    @staticmethod
    def _speed(post: Post) -> float:
        return post.draws / max(1e-9, time.monotonic() - post.since)


def _said(error: Exception) -> str:
    """The line of Ray's report that says what happened, without its guesses why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [
        line for line in lines if "Error" in line or "memory" in line or "SIG" in line or "node" in line
    ]
    said = (telling or lines or [type(error).__name__])[-1]
    return said.split(" Some common causes")[0].removeprefix(_PREAMBLE)[:300]

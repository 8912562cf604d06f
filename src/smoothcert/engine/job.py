"""One run over a data set: settle its specification, check the model, estimate, run, resume."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from smoothcert import datasets
from smoothcert.certificates.encoding import Encoding
from smoothcert.engine.blocks import Blocks, enough_under_way
from smoothcert.engine.cluster import RayCluster
from smoothcert.engine.cost import Estimate
from smoothcert.engine.evaluate import Evaluation, Images
from smoothcert.engine.execute import Executor, Source, execute
from smoothcert.engine.local import Threads, default_workers
from smoothcert.engine.plan import Plan, Planned
from smoothcert.engine.progress import display
from smoothcert.engine.specify import environment, roster_of, specify, stored_roster, with_classes_of
from smoothcert.engine.track import Tracker
from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.protocols import Dataset
from smoothcert.runlog import results
from smoothcert.runlog.configuration import write_configuration
from smoothcert.runlog.finished import (
    begin_notes,
    check_notes,
    finished_flags,
    others,
    unfinished_ranges,
    unfinished_rows,
)
from smoothcert.runlog.reading import merge
from smoothcert.runlog.results import Results
from smoothcert.runlog.roster import Roster
from smoothcert.runlog.shard import WHOLE, Shard, as_shard
from smoothcert.runlog.specification import ExecutionSpec, HeadSpec, RuleSpec, Specification
from smoothcert.runlog.standing import replayed, standings
from smoothcert.runlog.store import (
    DATABASE,
    ExampleRow,
    RunWriter,
    another_run,
    create_or_resume,
    open_run,
    stored_specification,
)
from smoothcert.smoothing.batch_size import batch_for
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder
from smoothcert.smoothing.lanes import is_accelerator
from smoothcert.smoothing.network import intra_op_threads
from smoothcert.smoothing.streams import Segment

_LONGEST_FEATURE = 16_384
_WARM_UP = 2  # batches a worker timed for the estimate; the model check has warmed everything up


@dataclass(frozen=True)
class Job:
    """One run, ready to start: everything settled and nothing drawn."""

    smoothed: SmoothedClassifier | SmoothedEncoder
    data: Dataset
    rows: Roster
    specification: Specification
    directory: Path
    executor: Executor
    shard: Shard = WHOLE

    @property
    def workers(self) -> int:
        """Batches evaluated at a time; changes no result."""
        return self.executor.workers

    @property
    def plan(self) -> Plan:
        """Its batches, where the numbers of draws are fixed; else what they can come to."""
        spec, examples = self.specification, self.rows.examples
        return Plan(examples, spec.rule.stages, spec.execution.batch, self._positions())

    def held(self) -> Sequence[ExampleRow]:
        """The images to certify: all, unless it is a shard."""
        positions = self._positions()
        return self.rows if positions is None else [self.rows[position] for position in positions]

    def _positions(self) -> Sequence[int] | None:
        """Where the images to certify are among all; ``None`` for all."""
        return None if self.shard.whole else self.shard.positions(self.rows.examples)

    def images(self) -> Images:
        """Its images, prepared for the noise when asked for."""
        noise = self.smoothed.noise_for(self.data.levels)
        return Images(self.data, noise, self.rows.place)

    def check_model(self) -> None:
        """Refuse a model that is not a function of one draw."""
        execution = self.specification.execution
        images = self.images()
        some = [images[row.example] for row in self.rows[: min(len(self.rows), execution.batch, 32)]]
        seed = self.specification.noise.seed
        self.smoothed.check(
            some,
            seed=seed,
            batch=execution.batch,
            noise=images.noise,
            workers=self.executor.together,
            afresh=True,
        )

    def draws_left(self) -> int:
        """Draws that are not stored yet."""
        if stored_specification(self.directory) is None:
            return self.plan.draws
        run, design = open_run(self.directory), self.specification.design()
        if run.finished() and (flags := finished_flags(run, self.rows)):
            stored = sum(run.sums(*found)[0] for found in unfinished_ranges(self.rows, flags))
            return design.most * flags.count(0) - stored
        rows = (row for row, _ in run.tallies())
        labels = self.rows.labels_of(self.shard)
        left = design.most * len(labels)
        for example, standing in replayed(design, rows, labels):
            if example in labels:
                left -= standing.drawn if standing.course.need else design.most
        return left

    def estimate(self) -> Estimate:
        """Time a few batches on a stream that no certificate uses."""
        execution = self.specification.execution
        spec, images, first = self.specification, self.images(), self.rows[0].example
        image, seed, batch = images[first], spec.noise.seed, execution.batch
        here = self.executor.together
        segments = [Segment(first, "check", 10**6 + k * batch, batch) for k in range(_WARM_UP * here)]

        def label(segment: Segment) -> None:
            self.smoothed.answers([(image, segment)], seed=seed, batch=batch, noise=images.noise)

        with intra_op_threads(execution.threads), ThreadPoolExecutor(here) as pool:
            started = time.perf_counter()
            list(pool.map(label, segments))
            took = time.perf_counter() - started
        return Estimate(
            self.draws_left(),
            batch * len(segments) / took * self.workers / here,
            batch,
            self.workers,
            execution.device,
            at_most=not spec.rule.fixed,
        )

    def run(self, *, quiet: bool = False) -> Results:
        """Draw what is missing and return every certificate; ``Interrupted`` keeps what is finished."""
        spec = self.specification
        writer = create_or_resume(self.directory, spec, self.rows, environment(), self.shard)
        try:
            write_configuration(self.directory, spec, data_dir=getattr(self.data, "data_dir", None))
            source, tracker = self._source(writer)
            draws = self.plan.draws if spec.rule.fixed else None
            title = f"{spec.rule.task} sigma={spec.noise.sigma:g}"
            title += "" if self.shard.whole else f" shard {self.shard}"
            bar = display(title, len(self.held()), draws, tracker, spec.noise.sigma, quiet=quiet)
            with bar:
                execute(
                    self.executor,
                    self,
                    source,
                    tracker,
                    writer,
                    lambda: bar.update(tracker, self.executor.note()),
                )
            found = results(writer)
            check_notes(writer, found)
            return found
        finally:
            writer.close()

    def evaluation(self) -> Evaluation:
        """How work becomes rows."""
        return Evaluation(self.smoothed, self.images(), self.specification)

    def _source(self, writer: RunWriter) -> tuple[Source, Tracker]:
        """The batches that are left to evaluate, and the score of the images."""
        spec, labels = self.specification, self.rows.labels_of(self.shard)
        if self.rows.ascending and not writer.ordered:
            writer.note_order()
        begin_notes(writer)
        other = others(self.shard, self.rows)
        finished = finished_flags(writer, self.rows) or other
        rows = list(unfinished_rows(writer, self.rows, finished))
        stored, radii = standings(spec.design(), rows, labels), (0.0, spec.noise.sigma)
        tracker = Tracker(spec.design(), labels, stored, done=finished.count(1) - other.count(1), radii=radii)
        if spec.rule.fixed and spec.rule.task != "encode":
            tracker.draws = self.plan.draws_each * tracker.done + sum(row.draws for row in rows)
            return Planned(self.plan, tracker, merge(rows), finished), tracker
        batch = spec.execution.batch
        # Every image takes turns under 'anytime', so that all stand equally whenever somebody stops.
        most = len(labels) if spec.rule.open_ended else enough_under_way(batch, self.workers)
        return Blocks(self.rows.examples, tracker, stored, batch, most, finished), tracker


def prepare(
    smoothed: SmoothedClassifier | SmoothedEncoder,
    data: Dataset | str,
    directory: str | Path,
    rule: RuleSpec,
    *,
    head: HeadSpec | None = None,
    seed: int = 0,
    batch: int | None = None,
    threads: int | None = None,
    workers: int | None = None,
    executor: Executor | RayCluster | str = "local",
    shard: Shard | str | None = None,
    rows: Roster | None = None,
    quiet: bool = True,
) -> Job:
    """Settle the specification of a run; ``SpecificationMismatch`` if the directory holds another one.

    ``executor`` is ``"local"``, ``"ray"`` or a ``RayCluster`` that says more. The specification of a shard is
    that of the whole run, its images included. ``rows`` are the images of ``data`` where another job has
    read them already; ``quiet`` shows no bar while they are read.
    """
    directory, shard = Path(directory), as_shard(shard)
    data = datasets.load(data) if isinstance(data, str) else datasets.checked(data)
    if workers is not None and workers < 1:
        raise InvalidInput(f"workers = {workers!r}", "at least one must work", "Leave it out for one a core")
    if isinstance(smoothed, SmoothedClassifier):
        smoothed = with_classes_of(smoothed, data)
    stored, rows = _stored(directory, data, rows, quiet=quiet)
    if batch is None and stored is None and is_accelerator(smoothed.network.device):
        _check_batch_is_given(shard)
        noise = smoothed.noise_for(data.levels)
        batch = batch_for(smoothed, noise.prepare(data[0].image), noise, seed=seed)
    spec = specify(
        smoothed, data, rows, rule, head=head, seed=seed, batch=batch, threads=threads, stored=stored
    )
    if stored is not None and stored.identity() != spec.identity():
        raise another_run(directory, stored, spec)
    if stored is not None:
        open_run(directory).shard.check_asked(shard, directory)
    spec.design()  # a rule that can decide nothing is refused before the model is asked
    job = Job(
        smoothed,
        data,
        rows,
        spec,
        directory,
        _executor(executor, workers, spec.execution, smoothed.network.device),
        shard,
    )
    with intra_op_threads(spec.execution.threads):
        job.check_model()
    if isinstance(smoothed, SmoothedEncoder):
        _check_dimension(smoothed, spec)
    return job


def _executor(
    chosen: Executor | RayCluster | str, workers: int | None, execution: ExecutionSpec, device: str
) -> Executor:
    """Who evaluates, with the number of workers settled."""
    if chosen != "local" and device.startswith("cuda:") and device != "cuda:0":
        raise InvalidInput(
            f"device {device!r} with a cluster",
            "each worker sees its own GPU as the first",
            "Write --device cuda (device='cuda'); CUDA_VISIBLE_DEVICES says which GPUs there are",
        )
    if chosen == "local":
        return Threads(workers or default_workers(execution))
    if chosen == "ray":
        chosen = RayCluster()
    if isinstance(chosen, str):
        raise UnknownName.among("executor", chosen, ("local", "ray"))
    if isinstance(chosen, RayCluster):
        return (dataclasses.replace(chosen, workers=workers) if workers else chosen).settled(execution)
    return chosen


def _check_batch_is_given(shard: Shard) -> None:
    """Shards that each measure a batch size of their own may end up with several, and never fit together."""
    if not shard.whole:
        raise InvalidInput(
            f"shard {shard} on an accelerator without a batch size",
            "each shard would find one of its own, and shards with different ones cannot be merged",
            "Write the same batch for all, for example 256 (a dry run of the whole prints what fits)",
        )


def _stored(
    directory: Path, data: Dataset, rows: Roster | None, *, quiet: bool
) -> tuple[Specification | None, Roster]:
    """The specification of the run that is there already, if any, and the images."""
    rows = rows if rows is not None and rows.named else None
    if not (directory / DATABASE).exists():
        return None, rows or roster_of(data, quiet=quiet)
    run = open_run(directory)
    try:
        return run.specification, stored_roster(run, data) or rows or roster_of(data, quiet=quiet)
    finally:
        run.close()


def _check_dimension(smoothed: SmoothedEncoder, specification: Specification) -> None:
    """Refuse features that do not fit the head, or are too long to keep a pilot of."""
    found, design = smoothed.dimension or 0, specification.design()
    if isinstance(design, Encoding):
        design.check_dimension(found)
    if found > _LONGEST_FEATURE:
        raise InvalidInput(
            f"features of {found:,} numbers",
            f"a run keeps every pilot draw; beyond {_LONGEST_FEATURE:,} they outgrow the run file",
            "Pool the tokens, or certify image by image with SmoothedEncoder.certify",
        )

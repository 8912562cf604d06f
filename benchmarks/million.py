"""Runs of a million images: size of the run file, memory of the driver, time to continue, work a driver feeds.

Run: python benchmarks/million.py make|resume|command|drive DIRECTORY [--images 1000000] [--rule table]
``make`` writes a real run file through the engine's own writer: 60 % of the images finished, some thousand
under way, the rest untouched. The votes are those of a few hundred images simulated once, under every name.
``resume`` times ``prepare`` and ``run`` from their call to the first work for an executor; ``command`` the same
for ``smoothcert certify`` as a whole process, beside one that only imports what it needs. ``drive`` continues
the run with an executor that answers at once, and says what a batch costs the driver.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import smoothcert as sc
from smoothcert.certificates.course import Design
from smoothcert.engine.execute import Queue
from smoothcert.engine.job import Job, prepare
from smoothcert.errors import Interrupted
from smoothcert.protocols import Example
from smoothcert.runlog.specification import RuleSpec
from smoothcert.runlog.store import RunWriter, TallyRow, create_or_resume
from smoothcert.tallies import Votes

CLASSES = tuple("0123456789")
RULES = {
    "fixed": {"stop": "fixed", "n0": 100, "n": 10_000},
    "table": {"stop": "table:0,0.25,0.5", "n": 10_000},
}
SIGMA, BATCH, SEED = 0.5, 256, 7
FINISHED, UNDER_WAY = 0.6, 0.004
KINDS = 200  # different images
_COMMITTED = 5_000  # rows at a time


class Million:
    """Images made from their numbers, so that they take no memory: the driver's own is what is measured."""

    name, levels, shape, classes = "python:million:data", 255, (3, 32, 32), CLASSES

    def __init__(self, count: int) -> None:
        self._count = count
        self._base = np.random.default_rng(SEED).integers(0, 256, size=3072, dtype=np.uint8)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Example:
        image = self._base.copy()
        image[:8] = np.frombuffer(position.to_bytes(8, "little"), dtype=np.uint8)
        return Example(position, image.reshape(self.shape), position % 10, f"image-{position}")


def data() -> Million:
    """The data set that ``smoothcert certify --data python:million:data`` finds."""
    return Million(int(os.environ["MILLION_IMAGES"]))


torch.manual_seed(SEED)
classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))


def rule(name: str) -> RuleSpec:
    return RuleSpec.settle("certify", alpha=0.001, **RULES[name])  # type: ignore[arg-type]


def prepared(directory: Path, images: int, name: str, executor: Any = None) -> Job:
    smoothed = sc.SmoothedClassifier(sc.classifiers.load("python:million:classifier"), sigma=SIGMA)
    job = prepare(
        smoothed, Million(images), directory / f"sigma-{SIGMA:g}", rule(name), batch=BATCH, workers=1
    )
    return job if executor is None else Job(**(vars(job) | {"executor": executor}))


def share(kind: int) -> float:
    """How often an image of some kind answers its class: from a little better than chance to always."""
    return 1.0 - 0.45 * (kind / KINDS) ** 8


def votes(kind: int, label: int, draws: int, rng: np.random.Generator) -> Votes:
    right = int(rng.binomial(draws, share(kind)))
    return Votes.of({label: right, (label + 1) % 10: draws - right})


def whole_course(design: Design, kind: int, label: int) -> list[tuple[str, int, int, Votes]]:
    """The rows of one finished image: a row a look, as an undisturbed run commits them."""
    rng, course, found = np.random.default_rng((SEED, kind, label)), design.begin(label), []
    while need := course.need:
        counted = votes(kind, label, need.end - need.first, rng)
        found.append((need.stage, need.first, need.end - need.first, counted))
        course = course.add(counted)
    return found


def make(directory: Path, images: int, name: str) -> dict[str, Any]:
    """Write the run file; its first start, from loading the images to the file, is timed on the way."""
    started, started_cpu = time.perf_counter(), time.process_time()
    job = prepared(directory, images, name)
    settled, settled_cpu = time.perf_counter(), time.process_time()
    writer = create_or_resume(job.directory, job.specification, job.rows, {})
    created, created_cpu = time.perf_counter(), time.process_time()
    at_start = largest()
    empty = (job.directory / "run.db").stat().st_size
    design, finished = job.specification.design(), int(FINISHED * images)
    under_way = finished + int(UNDER_WAY * images)
    rows = fill(writer, design, finished, under_way, job)
    begun = time.perf_counter()
    size = (job.directory / "run.db").stat().st_size
    writer.close()
    return {
        "prepare_s": settled - started,
        "prepare_cpu_s": settled_cpu - started_cpu,
        "create_s": created - settled,
        "create_cpu_s": created_cpu - settled_cpu,
        "fill_s": begun - created,
        "memory_at_start_mb": at_start,
        "bytes_an_image_listed": empty / images,
        "bytes_an_image_finished": (size - empty) / finished,
        "rows_an_image": rows / finished,
        "file_mb": size / 2**20,
    }


def fill(writer: RunWriter, design: Design, finished: int, under_way: int, job: Job) -> int:
    """Rows of finished images, and the first of those under way."""
    courses = {(k, label): whole_course(design, k, label) for k in range(KINDS) for label in range(10)}
    fixed, waiting, done, count = job.specification.rule.fixed, list[TallyRow](), list[int](), 0
    # Under 'fixed' batches run through the images, so that only whole batches can be under way.
    end = finished * job.plan.draws_each // BATCH * BATCH if fixed else 0
    for example in range(under_way):
        rows = courses[example * 7919 % KINDS, example % 10]
        if example >= finished:
            rows = begun_rows(rows, fixed)
        elif fixed and example == finished - 1:
            rows = cut(rows, end - example * job.plan.draws_each)
        else:
            done.append(example)
        waiting += [TallyRow(example, *row, 0.001 * row[2]) for row in rows]
        if len(waiting) >= _COMMITTED or example == under_way - 1:
            writer.append(waiting, done)
            count, waiting, done = count + len(waiting), [], []
    return count


def begun_rows(rows: list[tuple[str, int, int, Votes]], fixed: bool) -> list[tuple[str, int, int, Votes]]:
    return [] if fixed else rows[: max(1, len(rows) // 2)] if len(rows) > 1 else []


def cut(rows: list[tuple[str, int, int, Votes]], draws: int) -> list[tuple[str, int, int, Votes]]:
    """The first draws of an image."""
    found = []
    for stage, first, count, counted in rows:
        taken = min(count, draws)
        if taken:
            label, _ = counted.counts[0]
            found.append((stage, first, taken, counted if taken == count else Votes.of({label: taken})))
        draws -= taken
    return found


@dataclass
class AtOnce:
    """An executor whose workers need no time: it counts what an image of its kind would answer.

    ``limit`` batches, then the run is stopped as by Ctrl-C.
    """

    limit: int
    workers: int = 64
    first: float = 0.0
    memory: float = 0.0
    batches: int = 0
    finished: int = 0
    cpu: float = 0.0
    first_cpu: float = 0.0

    def answers(self, job: Job, queue: Queue) -> Iterator[list[TallyRow]]:
        self.first, self.first_cpu, self.memory = time.perf_counter(), time.process_time(), largest()
        rng, out, own = np.random.default_rng(SEED), [], 0.0
        started = time.process_time()
        while self.batches < self.limit:
            while len(out) <= self.workers and (work := queue.take(partly=not out)):
                out.append(work)
            if not out:
                break
            before = time.process_time()
            rows = [
                TallyRow(*s, votes(s.example * 7919 % KINDS, s.example % 10, s.draws, rng), 0.001 * s.draws)
                for s, counted in out.pop(0).batch
                if counted
            ]
            own += time.process_time() - before
            queue.answered(rows)
            self.batches += 1
            yield rows
        self.cpu = time.process_time() - started - own
        raise Interrupted("the benchmark", "has seen enough", "")

    def note(self) -> str:
        return ""


def resume(directory: Path, images: int, name: str, batches: int) -> dict[str, Any]:
    """Continue the run: how long until there is work, and what each batch then costs."""
    executor, before = AtOnce(batches), largest()
    started, started_cpu = time.perf_counter(), time.process_time()
    job = prepared(directory, images, name, executor)
    settled, settled_cpu = time.perf_counter(), time.process_time()
    left = job.draws_left()
    counted, counted_cpu = time.perf_counter(), time.process_time()
    with contextlib.suppress(Interrupted):
        job.run(quiet=True)
    return {
        "first_work_s": executor.first - started - (counted - settled),
        "first_work_cpu_s": executor.first_cpu - started_cpu - (counted_cpu - settled_cpu),
        "prepare_s": settled - started,
        "prepare_cpu_s": settled_cpu - started_cpu,
        "draws_left_s": counted - settled,
        "draws_left": left,
        "memory_after_imports_mb": before,
        "memory_at_first_work_mb": executor.memory,
        "memory_at_end_mb": largest(),
        "batches": executor.batches,
        "cpu_ms_a_batch": 1000.0 * executor.cpu / max(1, executor.batches),
        "images_noted": len(sc.open_run(job.directory).finished() or ()),
    }


def command(directory: Path, images: int, name: str) -> dict[str, Any]:
    """``smoothcert certify`` on the run as a process of its own, up to its first work, less its imports."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = os.environ | {"MILLION_IMAGES": str(images), "PYTHONPATH": paths}
    options = [f"--{key}={value}" for key, value in RULES[name].items()]
    arguments = ["certify", "--data=python:million:data", "--classifier=python:million:classifier"]
    arguments += ["--denoiser=none", f"--sigma={SIGMA}", f"--batch={BATCH}", "--workers=1", "--quiet"]
    code = (
        "import sys, million, smoothcert.cli.models\n"
        "if sys.argv[1] == 'certify':\n"
        "    from smoothcert.engine import local\n"
        "    def stop(*_): raise SystemExit(0)\n"
        "    local.Threads.answers = stop\n"
        "    from smoothcert.cli import main\n"
        "    main()\n"
    )
    took = {}
    for what, given in (("imports", ["nothing"]), ("certify", [*arguments, *options, f"--out={directory}"])):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, *given], env=environment, check=True)
        took[f"{what}_s"] = time.perf_counter() - started
    return took | {"first_work_less_imports_s": took["certify_s"] - took["imports_s"]}


def largest() -> float:
    """The largest resident size of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["make", "resume", "command", "drive"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--rule", choices=RULES, default="table")
    parser.add_argument("--batches", type=int, default=50_000, help="how many to drive")
    options = parser.parse_args()
    place = (options.directory, options.images, options.rule)
    if options.what == "make":
        found = make(*place)
    elif options.what == "command":
        found = command(*place)
    else:
        found = resume(*place, 1 if options.what == "resume" else options.batches)
    print(json.dumps({key: round(value, 3) for key, value in found.items()}, indent=1))


if __name__ == "__main__":
    main()

"""Fewer draws times faster draws: wall time of a whole table against the plain loop at n = 100,000.

Run: python benchmarks/wall_time.py [--quick] [--cifar DIR --weights resnet20.npz] [--modes torch:bf16]
The engine runs the table rule on all images, from the first check of the models to the last certificate. The
loop (reference_loop.py, float32, all cores in one call) is timed for some seconds before and after every mode;
what 100,100 draws an image would take it is EXTRAPOLATED from its median speed, for it would be hours.
Converting a network happens once and is stated apart. ``--cifar`` is the folder of ``cifar-10-batches-py``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pipelines import Pipeline, digits
from reference_loop import ReferenceLoop

import smoothcert as sc
from smoothcert import analysis
from smoothcert.engine import prepare
from smoothcert.engine.local import usable_cores
from smoothcert.errors import SmoothcertError
from smoothcert.runlog.results import Results
from smoothcert.runlog.specification import RuleSpec
from smoothcert.smoothing.network import default_batch, intra_op_threads

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
FIXED = 100_100  # draws of CERTIFY: 100 to select, 100,000 to estimate
MODES = ("float32", "bf16-mixed", "torch:bf16", "openvino:int8")


class DenoiserLoop(ReferenceLoop):
    """The loop for a denoiser that is no released diffusion model: noise, denoise, in float32."""

    def __init__(self, pipeline: Pipeline, device: str) -> None:
        self.pipeline, self.logits, self.device = pipeline, pipeline.logits, device
        self.classes = len(pipeline.data.classes)

    def denoised(self, images: torch.Tensor) -> torch.Tensor:
        sigma = self.pipeline.sigma
        clean: torch.Tensor = self.pipeline.denoiser(images + sigma * torch.randn_like(images), sigma)
        return clean


@dataclass
class Task:
    """A table to be made, and the loop that it is compared with; ``speeds`` are the loop's, draws a second."""

    pipeline: Pipeline
    loop: ReferenceLoop
    speeds: list[float] = field(default_factory=list)

    def time_loop(self, seconds: float) -> None:
        """Time the loop once more, for about so long."""
        pipeline, image = self.pipeline, self.pipeline.image()
        with intra_op_threads(usable_cores()):
            self.loop.counts(image, pipeline.batch, pipeline.batch)
            started, draws = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                self.loop.counts(image, 4 * pipeline.batch, pipeline.batch)
                draws += 4 * pipeline.batch
            self.speeds.append(draws / (time.perf_counter() - started))


@dataclass(frozen=True)
class Timed:
    """One mode: seconds of the whole run and of converting, and the certificates."""

    seconds: float
    converting: float
    results: Results


def digits_task(images: int) -> Task:
    pipeline = digits()
    data = sc.datasets.load(f"digits:test[::{504 // images}]")
    return Task(_with_data(pipeline, data), ReferenceLoop(pipeline, "cpu"))


def cifar_task(images: int, folder: Path, weights: Path) -> Task:
    """ResNet-20 of other people behind the denoiser that ships, sigma 0.25."""
    scales = "mean=0.485,0.456,0.406&std=0.229,0.224,0.225"
    classifier: Any = sc.classifiers.load(f"resnet20:{weights}?{scales}")
    denoiser: Any = sc.denoisers.load("cifar10")
    data = sc.datasets.load(f"cifar10:test[::{10_000 // images}]", root=folder)
    batch = default_batch(data.shape)
    pipeline = Pipeline(
        "cifar10, ResNet-20 behind `cifar10`", denoiser, classifier, classifier, data, 0.25, batch, 1
    )
    return Task(pipeline, DenoiserLoop(pipeline, "cpu"))


def run(task: Task, mode: str, rule: RuleSpec) -> Timed:
    """The table in one mode, from the checks of the models on."""
    pipeline, started = task.pipeline, time.perf_counter()
    denoiser, classifier = (_converted(pipeline, part, mode) for part in ("denoiser", "classifier"))
    converted = time.perf_counter()
    precision = mode if mode == "bf16-mixed" else "float32"
    smoothed = pipeline.smoothed(denoiser, classifier, "cpu", precision)
    with tempfile.TemporaryDirectory() as directory:
        job = prepare(
            smoothed,
            pipeline.data,
            Path(directory) / "run",
            rule,
            batch=pipeline.batch,
            workers=usable_cores(),
        )
        results = job.run(quiet=True)
    return Timed(time.perf_counter() - converted, converted - started, results)


def _converted(pipeline: Pipeline, part: str, mode: str) -> Any:
    """A network in the mode's backend; 8-bit scales come from noisy images of the data set."""
    model = getattr(pipeline, part)
    if mode in ("float32", "bf16-mixed"):
        return model
    from smoothcert import backends
    from smoothcert.smoothing.calibration import calibration

    behind = pipeline.denoiser if part == "classifier" else None
    return backends.convert(
        model,
        mode,
        sigma=pipeline.sigma if part == "denoiser" else None,
        shape=pipeline.data.shape,
        batch=pipeline.batch,
        calibration=calibration(pipeline.data, pipeline.sigma, denoiser=behind, batch=pipeline.batch),
    )


def _with_data(pipeline: Pipeline, data: Any) -> Pipeline:
    from dataclasses import replace

    return replace(pipeline, data=data)


def report(task: Task, timed: dict[str, Timed | str]) -> str:
    """Markdown, one line a mode."""
    pipeline, speed = task.pipeline, statistics.median(task.speeds)
    images = len(pipeline.data)
    loop = images * FIXED / speed
    spread = f"{min(task.speeds):,.0f} to {max(task.speeds):,.0f}"
    lines = [
        f"### {pipeline.name}, sigma {pipeline.sigma:g}, {images} images",
        "",
        f"The loop makes {speed:,.0f} draws a second ({spread}) and would take {loop:,.0f} s for n = 100,000.",
        "",
        f"| mode | seconds | draws an image | draws/s | fewer draws | faster draws | together | certified at {GRID}, % | converting |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for mode, one in timed.items():
        if isinstance(one, str):
            lines.append(f"| {mode} | skipped: {one} | | | | | | | |")
            continue
        effort = analysis.effort(one.results)
        rate, outcomes = effort.draws / one.seconds, one.results.outcomes
        shares = (100.0 * sum(o.certified_at(radius) for o in outcomes) / images for radius in GRID)
        lines.append(
            f"| {mode} | {one.seconds:,.1f} | {effort.mean:,.0f} | {rate:,.0f} | {FIXED / effort.mean:.1f}x "
            f"| {rate / speed:.2f}x | **{loop / one.seconds:.1f}x** | {' / '.join(f'{s:.1f}' for s in shares)} "
            f"| {one.converting:.1f} s |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few images, at most 2,000 draws: does it run?")
    parser.add_argument("--cifar", type=Path, help="folder of cifar-10-batches-py")
    parser.add_argument("--weights", type=Path, help="state dict of a CIFAR ResNet-20")
    parser.add_argument("--images", type=int, default=63, help="of each data set")
    parser.add_argument("--bound", default="one", choices=("one", "pair"))
    parser.add_argument("--modes", default=",".join(MODES))
    chosen = parser.parse_args()
    images, seconds = (4, 2.0) if chosen.quick else (chosen.images, 15.0)
    rule = RuleSpec.settle(
        "certify",
        stop="table:" + ",".join(map(str, GRID)),
        n=2_000 if chosen.quick else None,
        bound=chosen.bound,
    )
    tasks = [digits_task(images)]
    if chosen.cifar:
        tasks.append(cifar_task(images, chosen.cifar, chosen.weights))
    for task in tasks:
        timed: dict[str, Timed | str] = {}
        task.time_loop(seconds)
        for mode in chosen.modes.split(","):
            try:
                timed[mode] = run(task, mode, rule)
            except (SmoothcertError, ImportError) as error:
                timed[mode] = str(error).splitlines()[0]
            task.time_loop(seconds)
        print(report(task, timed), flush=True)
    if chosen.quick:
        print("--quick stops at 2,000 draws, so these factors are not those of the rule.")


if __name__ == "__main__":
    main()

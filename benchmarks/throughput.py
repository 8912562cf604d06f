"""Samples per second: this engine against a plain loop written the way the published code works.

Run: python benchmarks/throughput.py [--quick] [--device cuda] [--pipelines digits,vit,wrn] [--compile]
Same weights, one process, all modes in turn, medians; prints one Markdown table a pipeline. The engine's times
are of whole runs: noise, networks, tallies, run file, certificates. On a CPU the engine has one worker a core
with one thread each, and the loop is timed with all cores in one call, as people run it, and with one thread.
Modes whose extra is not installed are reported as skipped.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from pipelines import PIPELINES, Pipeline
from reference_loop import ReferenceLoop
from torch.utils.flop_counter import FlopCounterMode

from smoothcert.engine import prepare
from smoothcert.engine.local import usable_cores
from smoothcert.errors import SmoothcertError
from smoothcert.runlog.specification import RuleSpec
from smoothcert.smoothing.network import intra_op_threads


@dataclasses.dataclass(frozen=True)
class Mode:
    """One way to run the engine: a precision of torch, or backends for denoiser and classifier."""

    name: str
    precision: str = "float32"
    denoiser: str = "torch"
    classifier: str = "torch"


def both(backend: str) -> Mode:
    return Mode(f"engine, {backend}", "float32", backend, backend)


ON_CPU = (
    Mode("engine, float32"),
    Mode("engine, bf16-mixed", "bf16-mixed"),
    both("torch:f32+onednn"),
    both("torch:bf16"),
    both("openvino:bf16"),
    both("openvino:int8"),
    both("onnxruntime:int8"),
)
ON_CUDA = (
    Mode("engine, float32"),
    Mode("engine, bf16-mixed", "bf16-mixed"),
    Mode("engine, fp16-mixed", "fp16-mixed"),
    both("torch:bf16"),
    both("torch:f16"),
)
COMPILED = (both("torch:f32+compile"), both("torch:bf16+compile"))

Timed = tuple[str, Callable[[], float]]  # name, and a run that returns its draws a second


def engine_run(pipeline: Pipeline, mode: Mode, device: str, quick: bool, folder: Path) -> Callable[[], float]:
    """Whole runs of the engine, each in a directory of its own; everything is prepared here, once."""
    parts = [converted(pipeline, part, mode, quick) for part in ("denoiser", "classifier")]
    smoothed = pipeline.smoothed(*parts, device, mode.precision)
    if device == "cpu":
        batch, workers = pipeline.batch, usable_cores()
    else:  # the engine's own choice
        usual = prepare(smoothed, pipeline.data, folder / "usual", rule(100))
        batch, workers = usual.specification.execution.batch, usual.workers
    calls = workers * (1 if quick else pipeline.round_batches) * (1 if device == "cpu" else 4)
    job = prepare(
        smoothed, pipeline.data, folder / "run", rule(batch * calls - 2), batch=batch, workers=workers
    )
    number = itertools.count()

    def run() -> float:
        fresh = dataclasses.replace(job, directory=folder / f"run{next(number)}")
        started = time.perf_counter()
        fresh.run(quiet=True)
        return batch * calls / (time.perf_counter() - started)

    return run


def engine_run_or_reason(*arguments: Any) -> Callable[[], float] | str:
    """The same, or why this mode cannot run here."""
    try:
        return engine_run(*arguments)
    except (SmoothcertError, ImportError) as error:
        return f"skipped: {error}"


def rule(n: int) -> RuleSpec:
    return RuleSpec(task="certify", alpha=0.001, n0=2, n=n, stop="fixed")


def converted(pipeline: Pipeline, kind: str, mode: Mode, quick: bool) -> Any:
    """A part in the mode's backend; inputs of an 8-bit calibration are noise around the pipeline's image."""
    # A copy: a precision may lay out weights in another way, which the next mode would inherit.
    part, backend = copy.deepcopy(getattr(pipeline, kind)), getattr(mode, kind)
    if backend == "torch":
        return part
    from smoothcert.backends import Calibration, convert

    shown = pipeline.image() + pipeline.sigma * torch.randn(
        2 * pipeline.batch if quick else 64, *pipeline.data.shape, generator=torch.Generator().manual_seed(0)
    )
    if kind == "classifier":
        with torch.inference_mode():
            shown = torch.cat([pipeline.denoiser(some, pipeline.sigma) for some in shown.split(16)])
    return convert(
        part,
        backend,
        sigma=pipeline.sigma if kind == "denoiser" else None,
        shape=pipeline.data.shape,
        batch=pipeline.batch,
        calibration=Calibration(shown.numpy(), {"made_by": "benchmark"}),
    )


def loop_run(pipeline: Pipeline, device: str, threads: int, batch: int, draws: int) -> Callable[[], float]:
    loop, image = ReferenceLoop(pipeline, device), pipeline.image()

    def run() -> float:
        with intra_op_threads(threads):
            started = time.perf_counter()
            assert loop.counts(image, draws, batch).sum() == draws
            return draws / (time.perf_counter() - started)

    return run


def loops(pipeline: Pipeline, device: str, quick: bool) -> Iterator[Timed]:
    """The loop as people run it first: every other speed is divided by its."""
    cores = usable_cores()
    if device != "cpu":
        for batch in (200, 1000):
            yield (
                f"loop, batch {batch}",
                loop_run(pipeline, device, cores, batch, batch * (1 if quick else 3)),
            )
        return
    draws = pipeline.batch * (1 if quick else pipeline.round_batches)
    yield f"loop, {cores} threads (as run)", loop_run(pipeline, device, cores, pipeline.batch, draws)
    yield "loop, 1 thread", loop_run(pipeline, device, 1, pipeline.batch, draws)


def measured(pipeline: Pipeline, modes: tuple[Mode, ...], device: str, quick: bool) -> dict[str, Any]:
    """Median draws a second of each mode, or why it was skipped."""
    rounds, found = 1 if quick else 3, dict[str, Any]()
    with tempfile.TemporaryDirectory() as directory:
        for part in (pipeline.denoiser.network, pipeline.classifier):
            part.to(device)
        timed = list(loops(pipeline, device, quick))
        for mode in modes:
            say(f"{pipeline.name}: preparing {mode.name}")
            folder = Path(directory) / mode.name.replace(" ", "").replace(":", "-")
            run = engine_run_or_reason(pipeline, mode, device, quick, folder)
            if isinstance(run, str):
                found[mode.name] = run
            else:
                timed.append((mode.name, run))
        speeds: dict[str, list[float]] = {name: [] for name, _ in timed}
        for _ in range(rounds):
            for name, run in timed:
                speeds[name].append(run())
                say(f"{pipeline.name}: {name} {speeds[name][-1]:.4g} draws/s")
    return {name: statistics.median(each) for name, each in speeds.items()} | found


def flops(pipeline: Pipeline) -> float:
    """Floating-point operations of one draw in products and convolutions."""
    device = next(pipeline.denoiser.network.parameters()).device
    images = pipeline.image().to(device).repeat(2, 1, 1, 1)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        pipeline.logits(pipeline.denoiser(images, pipeline.sigma))
    return counter.get_total_flops() / 2


def peak(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of the fastest of some large matrix products here."""
    size, best = (8192 if device != "cpu" else 2048), 0.0
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(10):
        started = time.perf_counter()
        product = a @ b
        float(product[0, 0])  # waits for the device
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def table(pipeline: Pipeline, found: dict[str, Any], peaks: dict[str, float]) -> str:
    """Markdown; speeds are divided by the loop as people run it, and by the engine in float32."""
    speeds = {name: value for name, value in found.items() if isinstance(value, float)}
    bases = {"loop as run": next(iter(speeds.values())), "engine float32": speeds.get(ON_CPU[0].name)}
    each = flops(pipeline)
    columns = ["mode", "draws/s", *(f"against {base}" for base in bases), *peaks]
    lines = [f"### {pipeline.name}: {each / 1e9:.3g} GFLOP a draw", ""]
    lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, value in found.items():
        if isinstance(value, str):
            cells = [name, value.splitlines()[0][:120]] + [""] * (len(columns) - 2)
        else:
            ratios = [f"{value / base:.2f}" if base else "" for base in bases.values()]
            shares = [f"{value * each / most:.1%}" for most in peaks.values()]
            cells = [name, f"{value:,.4g}", *ratios, *shares]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round: does everything run?")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pipelines", default=",".join(PIPELINES))
    parser.add_argument("--modes", default="", help="only modes whose name contains one of these")
    parser.add_argument("--compile", action="store_true", help="also the compiled modes (minutes more)")
    options = parser.parse_args()
    device = options.device
    modes = (ON_CPU if device == "cpu" else ON_CUDA) + (COMPILED if options.compile else ())
    modes = tuple(m for m in modes if any(word in m.name for word in options.modes.split(",")))
    torch.manual_seed(0)
    cores = usable_cores()
    with intra_op_threads(cores):
        peaks = {
            f"share of {name} peak": peak(device, dtype)
            for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        }
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{cores} cores"
    tf32 = torch.backends.cudnn.allow_tf32 if device.startswith("cuda") else False
    print(f"torch {torch.__version__}, {where}" + (", convolutions of float32 in TF32" if tf32 else ""))
    print(", ".join(f"{name}: {most / 1e9:,.0f} GFLOP/s" for name, most in peaks.items()) + "\n")
    for name in options.pipelines.split(","):
        pipeline = PIPELINES[name]()
        if options.quick:
            pipeline = dataclasses.replace(pipeline, batch=pipeline.batch // 4)
        print(table(pipeline, measured(pipeline, modes, device, options.quick), peaks), flush=True)


if __name__ == "__main__":
    main()

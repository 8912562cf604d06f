"""``smoothcert tune``: time the backends on this machine and write the choice down."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothcert.cli import options
from smoothcert.cli.settings import Settings, given_in, settle
from smoothcert.cli.terminal import say, show

if TYPE_CHECKING:
    from smoothcert.analysis.text import TextTable
    from smoothcert.engine.comparison import Measured, Setting
    from smoothcert.engine.tuning import Tuned

_OWN = ("config", "backends", "seconds", "agreement", "out", "quiet", "as_json")
_CAPTION = (
    "Medians of interleaved rounds, all workers together. Same: share of single noisy draws that get the "
    "label that the networks as loaded (torch, float32) give them. Right: share that get the true label. "
    "Differs: root mean square over the denoised pixels, on [0, 1]."
)
_MEANING = (
    "Every line is another base classifier: its certificates are its own, and worth as much. The share of "
    "equal votes says how little changes, not whether a certificate holds."
)


def tune(
    data: options.Data = None,
    data_dir: options.DataDirectory = None,
    download: options.Download = None,
    classifier: options.ClassifierName = None,
    denoiser: options.DenoiserName = None,
    sampler: options.SamplerName = None,
    sigma: options.Sigmas = None,
    noise: options.NoiseKind = None,
    batch: options.Batch = None,
    threads: options.Threads = None,
    workers: options.Workers = None,
    device: options.Device = None,
    config: options.Config = None,
    backends: Annotated[
        str | None,
        typer.Option(
            "--backends", help="Only these, separated by commas.", show_default="all for this device"
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="For timing; conversions come on top.")] = 30.0,
    agreement: Annotated[
        float, typer.Option("--agreement", help="Least share of draws on which the choice votes alike.")
    ] = 0.99,
    out: Annotated[Path | None, typer.Option("--out", help="TOML file for certify --config.")] = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Find what runs these networks fastest here: half precision, OpenVINO, ONNX Runtime, 8-bit integers.

    Times every backend beside the networks as loaded, compares denoised images and votes, and writes the
    fastest choice that votes alike into a file for certify. Each choice is another base classifier with its
    own certificate.

    [bold]Examples[/]

      smoothcert tune --out fast.toml

      smoothcert certify --config fast.toml --out runs/fast
    """
    flags = {key: value for key, value in locals().items() if key not in _OWN}
    settings = settle("certify", config, flags)
    from smoothcert.engine import tuning

    setting = _setting(settings)
    usual = tuning.CPU if settings.device == "cpu" else tuning.ACCELERATOR
    names = tuple(name.strip() for name in backends.split(",")) if backends else usual
    found = tuning.tune(
        setting, names, seconds=seconds, agreement=agreement, report=lambda text: say(text, quiet=quiet)
    )
    chosen = {"classifier_backend": found.classifier_backend}
    if settings.denoiser != "none":
        chosen["denoiser_backend"] = found.denoiser_backend
    if as_json:
        print(json.dumps(_plain(found, chosen)))
    else:
        _show(found, quiet=quiet)
    if out is not None:
        _write(
            out,
            given_in(config, flags) | {"batch": setting.batch, "threads": setting.threads} | chosen,
            found,
        )
        say(f"\nwrote {out}; next: smoothcert certify --config {out} --out DIRECTORY", quiet=quiet)


def _setting(settings: Settings) -> Setting:
    """What is tuned, at the middle of the noise levels."""
    from smoothcert.cli.models import load_data, load_models
    from smoothcert.engine.comparison import Setting
    from smoothcert.engine.local import usable_cores
    from smoothcert.smoothing.network import default_batch

    data, (classifier, denoiser) = load_data(settings), load_models(settings)
    threads = settings.threads or 1
    on_cpu = settings.device == "cpu"
    return Setting(
        classifier,
        denoiser,
        data,
        settings.sigma[len(settings.sigma) // 2],
        settings.noise,
        settings.device,
        settings.batch or default_batch(data.shape, settings.device),
        threads,
        settings.workers or (max(1, usable_cores() // threads) if on_cpu else 1),
    )


def _show(found: Tuned, *, quiet: bool) -> None:
    show(_table(found))
    for name, why in found.refused.items():
        say(f"left out: {name}: {why}", quiet=quiet)
    chosen = found.chosen
    named = f"{found.denoiser_backend} for the denoiser, " if found.denoised else ""
    say(
        f"\nchosen: {named}{found.classifier_backend} for the classifier: {chosen.speed_up:.2f} times as "
        f"fast end to end ({chosen.draws_per_second:,.1f} draws/s); {chosen.votes:.2%} of {chosen.draws:,} "
        "draws vote alike",
        quiet=quiet,
    )
    say(_MEANING, quiet=quiet)


def _table(found: Tuned) -> TextTable:
    from smoothcert.analysis.text import TextTable

    rows = [_row(one) for one in (*found.candidates, found.chosen)]
    header = ("part", "backend", "draws/s", "times", "same", "right", "differs")
    last = len(rows) - 1
    return TextTable(header, tuple(rows), strong=frozenset({(last, 3), (last, 4)}), caption=_CAPTION)


def _row(one: Measured) -> tuple[str, ...]:
    return (
        one.role,
        "as chosen" if one.role == "both" else one.backend,
        f"{one.draws_per_second:,.1f}",
        f"{one.speed_up:.2f}",
        f"{one.votes:.1%}",
        f"{one.accuracy:.1%}",
        "" if one.rmse is None else f"{one.rmse:.4f}",
    )


def _plain(found: Tuned, chosen: dict[str, str]) -> dict[str, Any]:
    return {
        "candidates": [dataclasses.asdict(one) for one in found.candidates],
        "refused": dict(found.refused),
        "end_to_end": dataclasses.asdict(found.chosen),
        "chosen": chosen,
    }


def _write(out: Path, values: dict[str, Any], found: Tuned) -> None:
    from smoothcert.runlog.configuration import to_toml

    head = (
        "# Chosen by smoothcert tune on this machine; another base classifier than the networks as loaded.\n"
        f"# {found.chosen.speed_up:.2f} times as fast; "
        f"{found.chosen.votes:.2%} of {found.chosen.draws:,} draws vote alike.\n"
        f"# Use: smoothcert certify --config {out.name} --out DIRECTORY\n"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(head + to_toml(values), encoding="utf-8")

"""The flat TOML file of a run: the words of the command line, one a line, enough to repeat it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from smoothcert.errors import InvalidInput, RunFileError
from smoothcert.runlog.specification import Specification

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "run.toml"


def settings(specification: Specification) -> dict[str, Any]:
    """The specification in the words of the command line's options."""
    spec = specification
    chosen: dict[str, Any] = {
        "task": spec.rule.task,
        "data": spec.data.name,
        "classifier": spec.classifier.source if spec.classifier else None,
        "encoder": spec.encoder.source if spec.encoder else None,
        "mapper": spec.mapper.source if spec.mapper else None,
        "head": spec.head.source if spec.head else None,
        "decision": spec.rule.decision,
        "served": spec.rule.served,
        "denoiser": spec.denoiser.source if spec.denoiser else "none",
        "sampler": sampler_name(spec.denoiser.settings) if spec.denoiser else None,
        "sigma": spec.noise.sigma,
        "noise": spec.noise.kind,
        "seed": spec.noise.seed,
        "alpha": spec.rule.alpha,
        "stop": spec.rule.stop,
        "n0": spec.rule.n0 or None,
        "n": spec.rule.n,
        "bound": spec.rule.bound if spec.rule.task == "certify" else None,
        "label_aware": spec.rule.label_aware or None,
        "futility": spec.rule.futility,
        "batch": spec.execution.batch,
        "threads": spec.execution.threads,
        "precision": spec.execution.dtype,
        "denoiser_backend": spec.denoiser.settings.get("backend") if spec.denoiser else None,
        "classifier_backend": spec.classifier.settings.get("backend") if spec.classifier else None,
        "device": "cpu" if spec.execution.device == "cpu" else "cuda",
    }
    return {key: value for key, value in chosen.items() if value is not None}


def sampler_name(settings: dict[str, Any]) -> str | None:
    """The sampler's name as the command line writes it: ``one-shot``, ``ddim:20``."""
    sampler = settings.get("sampler")
    if not isinstance(sampler, dict) or "name" not in sampler:
        return None
    return f"{sampler['name']}:{sampler['steps']}" if "steps" in sampler else str(sampler["name"])


def to_toml(values: dict[str, Any]) -> str:
    """Flat TOML: strings, numbers and lists of them."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def write_configuration(
    directory: Path, specification: Specification, *, data_dir: Path | None = None
) -> None:
    """Write ``run.toml`` beside the run file.

    ``data_dir`` is the folder that must be named to find the data again. It is no part of the specification:
    the same images elsewhere are the same run.
    """
    verb = "predict" if specification.rule.task == "predict" else "certify"
    text = (
        f"# Repeats this run, where its data and models have these names:\n"
        f"#   smoothcert {verb} --config {FILE} --out DIRECTORY\n"
        f"# specification {specification.identity()}\n"
    )
    try:
        found = {"data_dir": str(data_dir)} if data_dir else {}
        content = text + to_toml(settings(specification) | found)
        (directory / FILE).write_text(content, encoding="utf-8")
    except OSError as error:
        raise RunFileError(
            f"{directory / FILE}",
            f"cannot be written ({error})",
            "Free some space or choose another directory",
        ) from error


def read_configuration(path: str | Path) -> dict[str, Any]:
    """Read a flat TOML file; ``InvalidInput`` with the line for what is not TOML, or not flat."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(
            f"the configuration {path}", f"cannot be read ({error})", "Write flat TOML: sigma = 0.25"
        ) from error
    nested = [key for key, value in values.items() if isinstance(value, dict)]
    if nested:
        raise InvalidInput(
            f"the table [{nested[0]}] in {path}",
            "the configuration is flat",
            "Write its keys at the top level",
        )
    return values

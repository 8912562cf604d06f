"""Every option of a run, settled: a value comes from its flag, else the configuration, else the default."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.runlog.shard import Shard, as_shard

DEMO_DATA = "digits:test[::8]"
DEMO_HEAD = "examples:digits:train"
ENCODING = ("encoder", "mapper", "head", "decision", "served")  # options that --task encode alone has
VOTING = ("classifier", "classifier_backend", "stop", "bound", "label_aware", "futility")
SCALE = ("executor", "address", "gpus_per_worker")  # where the work is done
OF_ONE_COMMAND = ("out", "workers", "download", "shard", *SCALE)  # in no configuration that is written
DECISIONS = ("auto", "votes", "margin", "dual")
DEMO_DRAWS = {"table": 10_000, "radius": 10_000, "predict": 2_000}  # 1,000 where the number is fixed
STOP = {"certify": "table", "predict": "predict"}  # the command line's own rules

_DEFAULTS: dict[str, Any] = {
    "data": DEMO_DATA,
    "data_dir": None,
    "download": False,
    "classifier": "digits",
    "denoiser": "digits",
    "task": "certify",
    "encoder": "digits",
    "mapper": "none",
    "head": None,
    "decision": "auto",
    "served": None,
    "sampler": None,
    "sigma": (0.25, 0.5, 1.0),
    "noise": "grid",
    "n0": None,
    "n": None,
    "alpha": 0.001,
    "bound": "one",
    "stop": None,
    "label_aware": False,
    "futility": None,
    "seed": 0,
    "batch": None,
    "threads": None,
    "workers": None,
    "executor": "local",
    "address": None,
    "gpus_per_worker": None,
    "shard": None,
    "precision": "float32",
    "denoiser_backend": "torch",
    "classifier_backend": "torch",
    "device": "auto",
    "out": None,
}
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("data", "classifier", "denoiser", "sampler", "noise", "bound", "stop", "precision", "device"), (str,)
    ),
    **dict.fromkeys(("denoiser_backend", "classifier_backend", "shard"), (str,)),
    **dict.fromkeys(("task", "encoder", "mapper", "head", "decision"), (str,)),
    **dict.fromkeys(("n0", "n", "seed", "batch", "threads", "served"), (int,)),
    **dict.fromkeys(("executor", "address"), (str,)),
    **dict.fromkeys(("alpha", "futility"), (float,)),
    "gpus_per_worker": (float, int),
    "workers": (int, str),
    "sigma": (float, int, list, tuple, str),
    "out": (str, Path),
    "data_dir": (str, Path),
    **dict.fromkeys(("download", "label_aware"), (bool,)),
}


@dataclass(frozen=True)
class Settings:
    """Every option of a run, settled."""

    data: str
    data_dir: str | None
    download: bool
    task: str
    classifier: str
    encoder: str
    mapper: str
    head: str
    decision: str
    served: int | None
    denoiser: str
    sampler: str | None
    sigma: tuple[float, ...]
    noise: str
    n0: int
    n: int
    alpha: float
    bound: str
    stop: str
    label_aware: bool
    futility: float | None
    seed: int
    batch: int | None
    threads: int | None
    workers: int | None
    executor: str
    address: str | None
    gpus_per_worker: float | None
    shard: Shard
    precision: str
    denoiser_backend: str
    classifier_backend: str
    device: str
    out: Path

    @property
    def shared(self) -> Path:
        """What ``--out`` says: the directory of all shards, or of the whole run."""
        return self.out if self.shard.whole else self.out.parent


def settle(task: str, config: Path | None, flags: dict[str, Any]) -> Settings:
    """Join flags, configuration and defaults, in that order; unknown keys and wrong types are refused."""
    written, given_now = _configured(task, config), {k: v for k, v in flags.items() if v is not None}
    if given_now.get("denoiser") == "none":
        for key in ("sampler", "denoiser_backend"):  # of the denoiser that is being left out
            written.pop(key, None)
    chosen = written | given_now
    given = set(chosen)
    values = _DEFAULTS | {"task": task} | chosen
    task = _settle_task(values, given, set(given_now))
    if "data" in given and not str(values["data"]).startswith("digits"):
        _need_models(given, values)
    _settle_rule(task, values, demo="data" not in given, written=written)
    if values["denoiser"] == "none" and values["sampler"] is not None:
        raise InvalidInput(
            f"--sampler {values['sampler']} with --denoiser none",
            "there is no denoiser to sample",
            "Leave it out",
        )
    if values["denoiser"] == "none" and values["denoiser_backend"] != _DEFAULTS["denoiser_backend"]:
        raise InvalidInput(
            f"--denoiser-backend {values['denoiser_backend']} with --denoiser none",
            "there is no denoiser to run",
            "Leave it out",
        )
    values["sigma"] = numbers("sigma", values["sigma"])
    if values["data_dir"] is not None:  # a configuration may be read from another directory
        values["data_dir"] = str(Path(values["data_dir"]).expanduser().absolute())
    values["device"] = _device(values["device"])
    values["workers"] = _workers(values["workers"])
    _check_scale(values)
    values["out"] = Path(values["out"] if "out" in given else default_directory(task, chosen))
    values["shard"] = shard = as_shard(values["shard"])
    values["out"] /= "" if shard.whole else shard.directory
    return Settings(**values)


def _settle_task(values: dict[str, Any], given: set[str], flagged: set[str]) -> str:
    """The task of the run; options that belong to another one are refused."""
    task = str(values["task"])
    if "task" in given and task not in ("certify", "predict", "encode"):
        raise UnknownName.among("task", task, ("certify", "encode"))
    values["head"] = values["head"] or (DEMO_HEAD if task == "encode" and "data" not in given else "none")
    for name in VOTING if task == "encode" else ENCODING:
        meant = name in flagged or (name in given and values[name] != _DEFAULTS[name])
        if meant and values[name] not in ("none", "fixed"):
            flag, wanted = f"--{name.replace('_', '-')}", "certify" if task == "encode" else "encode"
            raise InvalidInput(
                f"{flag} {values[name]} with --task {task}",
                f"it belongs to the task {wanted}",
                f"Leave {flag} out" + ("" if task == "encode" else ", or add --task encode"),
            )
    if task == "encode":
        values["stop"] = "fixed"
        if values["decision"] not in DECISIONS:
            raise UnknownName.among("decision", values["decision"], DECISIONS)
        if values["decision"] != "auto" and values["head"] == "none":
            raise InvalidInput(
                f"--decision {values['decision']}", "there is no head that decides", "Add --head"
            )
    return task


def _settle_rule(task: str, values: dict[str, Any], *, demo: bool, written: dict[str, Any]) -> None:
    """The stopping rule and its numbers of draws, in place."""
    from smoothcert.certificates.designs import usual
    from smoothcert.certificates.rules import parse_stop

    if values["stop"] is None and "n0" in written:
        values["stop"] = "fixed"  # a file from before there were other rules
    elif values["stop"] is None and values["n0"] is not None and task == "certify":
        raise InvalidInput(
            f"--n0 {values['n0']} without --stop",
            "the usual rule, table, sets no selection draws aside",
            "Add --stop fixed, or leave --n0 out",
        )
    rule = parse_stop(
        values["stop"] or STOP.get(task, "fixed"), task if task in ("predict", "encode") else "certify"
    )
    usually = usual(rule, task)
    values["stop"] = str(rule)
    values["n0"] = usually.n0 if values["n0"] is None else values["n0"]
    if values["n"] is None:
        values["n"] = DEMO_DRAWS.get(rule.kind, 1_000) if demo else usually.n


def both_pictures(out: Path) -> tuple[Path, Path]:
    """The PNG and the SVG that ``--out`` asks for; another ending is refused."""
    if out.suffix.lower() not in (".png", ".svg", ""):
        raise InvalidInput(f"--out {out}", "pictures are PNG and SVG", f"Write --out {out.stem}.png")
    return out.with_suffix(".png"), out.with_suffix(".svg")


def default_directory(task: str, chosen: dict[str, Any]) -> str:
    """``runs/digits``, with what differs from the demo in the name: ``runs/digits-none``."""
    words = [str(chosen.get("data", "digits")).partition("[")[0]]
    words += [
        str(chosen[key])
        for key in (
            "classifier",
            "classifier_backend",
            "encoder",
            "mapper",
            "decision",
            "denoiser",
            "denoiser_backend",
            "sampler",
            "noise",
            "bound",
            "precision",
            "stop",
        )
        if key in chosen
    ]
    words += ["label-aware"] if chosen.get("label_aware") else []
    words += [task] if task in ("predict", "encode") else []
    return "runs/" + re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(words)).strip("-.")


def numbers(name: str, value: Any) -> tuple[float, ...]:
    """Numbers from a flag (``0.25,0.5``), a TOML list, or one number."""
    parts = (
        value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    )
    try:
        found = tuple(dict.fromkeys(float(part) for part in parts))
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"{name} = {value!r}", "is not a list of numbers", f"Write {name} 0.25,0.5,1"
        ) from error
    if not found:
        raise InvalidInput(f"{name} = {value!r}", "is empty", f"Write {name} 0.25,0.5,1")
    return found


def given_in(config: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """What the user said, in a configuration or by flags, ready to be written to another configuration."""
    said = _configured("certify", config) | {k: v for k, v in flags.items() if v is not None}
    found = {key: value for key, value in said.items() if key not in OF_ONE_COMMAND}
    if "data_dir" in found:
        found["data_dir"] = str(Path(found["data_dir"]).expanduser().absolute())
    return found


def _configured(task: str, config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    from smoothcert.runlog.configuration import read_configuration

    values = read_configuration(config)
    said = values.get("task", task)
    if said != task and (task, said) != ("certify", "encode"):
        raise InvalidInput(
            f"the configuration {config}", f"is not for '{task}'", "Use the verb its task names"
        )
    for key, value in values.items():
        if key not in _DEFAULTS:
            raise UnknownName.among(f"option in {config}", key, _DEFAULTS)
        if isinstance(value, bool) != (_KINDS[key] == (bool,)) or not isinstance(value, _KINDS[key]):
            kinds = " or ".join(kind.__name__ for kind in _KINDS[key])
            raise InvalidInput(f"{key} = {value!r} in {config}", f"must be {kinds}", "Correct that line")
    return values


def _need_models(given: set[str], values: dict[str, Any]) -> None:
    from smoothcert import datasets

    base = "encoder" if values["task"] == "encode" else "classifier"
    data, missing = values["data"], [name for name in (base, "denoiser") if name not in given]
    if missing:
        root, download = values["data_dir"], bool(values["download"])
        datasets.load(data, root=root, download=download)  # data that are not there come first
        raise InvalidInput(
            f"data {data!r} without a {missing[0]}",
            "the embedded models know handwritten digits only",
            f"Add --{missing[0]} NAME" + (" (or --denoiser none)" if missing[0] == "denoiser" else ""),
        )


def _workers(said: Any) -> int | None:
    """How many workers were asked for; ``None`` for as many as there is room for."""
    if said in (None, "auto"):
        return None
    try:
        found = int(said)
    except ValueError:
        found = 0
    if found < 1:
        raise InvalidInput(f"--workers {said}", "at least one must work", "Write --workers auto, or a number")
    return found


def _check_scale(values: dict[str, Any]) -> None:
    """Refuse options of a cluster without one."""
    executors = ("local", "ray")
    if values["executor"] not in executors:
        raise UnknownName.among("executor", values["executor"], executors)
    for name in ("address", "gpus_per_worker"):
        if values["executor"] == "local" and values[name] is not None:
            flag = f"--{name.replace('_', '-')}"
            raise InvalidInput(f"{flag} {values[name]}", "it is for a cluster", "Add --executor ray")


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

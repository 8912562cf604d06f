"""Which backend runs each network fastest here, and what that changes: timed on real draws, side by side.

The draws come from a stream that no certificate uses, so choosing by them costs no confidence. What is chosen
is another base classifier, and its certificates are about that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from smoothcert import backends
from smoothcert.engine.comparison import Asked, Measured, Setting, compared, rounds
from smoothcert.errors import InvalidInput, SmoothcertError
from smoothcert.smoothing.calibration import calibration
from smoothcert.smoothing.network import intra_op_threads

CPU = ("torch:f32+onednn", "torch:bf16", "openvino:f32", "openvino:bf16", "openvino:int8", "onnxruntime:int8")
ACCELERATOR = ("torch:bf16", "torch:f16")


@dataclass(frozen=True)
class Tuned:
    """The outcome: candidates one by one, those that cannot run here and why, and the pair confirmed."""

    candidates: tuple[Measured, ...]
    refused: Mapping[str, str]
    chosen: Measured
    denoiser_backend: str
    classifier_backend: str

    @property
    def denoised(self) -> bool:
        """Whether there is a denoiser."""
        return any(one.role == "denoiser" for one in self.candidates)


def tune(
    setting: Setting,
    names: Sequence[str],
    *,
    seconds: float,
    agreement: float,
    report: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Time candidates for each part, choose the fastest pair that votes alike, and confirm it end to end.

    Args:
        names: backends to try beside ``torch``.
        seconds: for all timing together; conversions come on top.
        agreement: least share of draws on which the choice must vote as the networks as they were loaded.
        report: hears what is being done.
    """
    if not 0 < agreement <= 1 or not seconds > 0:
        given = f"seconds={seconds:g}, agreement={agreement:g}"
        raise InvalidInput(given, "no such time or share", "Write for example --seconds 30 --agreement 0.99")
    for name in names:
        backends.parse(name)
    roles = ["denoiser", "classifier"] if setting.denoiser is not None else ["classifier"]
    refused: dict[str, str] = {}
    parts = {role: _converted(setting, role, names, refused, report) for role in roles}
    measured: list[Measured] = []
    with intra_op_threads(setting.threads), ThreadPoolExecutor(setting.workers) as pool:
        share = seconds / (len(roles) + 1)
        for role in roles:
            report(f"timing the {role}")
            measured += compared(setting, pool, role, _pairs(setting, role, parts[role]), share)
        chosen, found = _confirmed(setting, pool, parts, measured, agreement, share, report)
    return Tuned(
        tuple(measured), refused, found, chosen.get("denoiser", backends.PLAIN), chosen["classifier"]
    )


def _converted(
    setting: Setting,
    role: str,
    names: Sequence[str],
    refused: dict[str, str],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """The part in every backend that can run it here."""
    part: Any = setting.denoiser if role == "denoiser" else setting.classifier
    found = {backends.PLAIN: part}
    for name in names:
        if name == backends.PLAIN:
            continue
        report(f"converting the {role} to {name}")
        typical = calibration(
            setting.data,
            setting.sigma,
            noise=setting.noise,
            denoiser=setting.denoiser if role == "classifier" else None,
            batch=setting.batch,
            threads=setting.threads,
        )
        try:
            converted = backends.convert(
                part,
                name,
                sigma=setting.sigma if role == "denoiser" else None,
                shape=setting.data.shape,
                batch=setting.batch,
                calibration=typical,
            )
            _try(setting, role, converted)
            found[name] = converted
        except SmoothcertError as error:
            refused[f"{role} {name}"] = f"{error.why}. {error.instead}"
    return found


def _try(setting: Setting, role: str, part: Any) -> None:
    """One batch, for what only shows when it runs: numbers that the device lacks, a missing compiler."""
    pair = (setting.classifier, part) if role == "denoiser" else (part, None)
    noisy, named, _ = next(rounds(setting))
    asked = Asked(setting, "both", *pair)
    try:
        with ThreadPoolExecutor(1) as pool:
            asked.answers(pool, noisy[: setting.batch], named[: setting.batch])
    except SmoothcertError:
        raise
    except Exception as error:  # whatever it is, the library raised it
        first = (str(error).strip().splitlines() or ["no message"])[0]
        why = f"it failed on a batch ({type(error).__name__}: {first[:160]})"
        raise InvalidInput(role, why, "Leave it out with --backends") from error


def _pairs(setting: Setting, role: str, parts: Mapping[str, Any]) -> dict[str, tuple[Any, Any | None]]:
    """Each candidate with the other part as it was loaded."""
    if role == "denoiser":
        return {name: (setting.classifier, part) for name, part in parts.items()}
    return {name: (part, setting.denoiser) for name, part in parts.items()}


def _confirmed(
    setting: Setting,
    pool: ThreadPoolExecutor,
    parts: Mapping[str, Mapping[str, Any]],
    measured: Sequence[Measured],
    agreement: float,
    seconds: float,
    report: Callable[[str], None],
) -> tuple[dict[str, str], Measured]:
    """The fastest pair whose votes agree, timed as a whole; a pair that does not hold makes way."""
    for pair in _by_speed(measured, agreement):
        report("confirming " + ", ".join(f"{role} {name}" for role, name in pair.items()))
        classifier = parts["classifier"][pair["classifier"]]
        denoiser = parts["denoiser"][pair["denoiser"]] if "denoiser" in pair else None
        both = {
            backends.PLAIN: (setting.classifier, setting.denoiser),
            " + ".join(pair.values()): (classifier, denoiser),
        }
        if set(pair.values()) == {backends.PLAIN}:
            both = {backends.PLAIN: (setting.classifier, setting.denoiser)}
        found = compared(setting, pool, "both", both, seconds)[-1]
        if found.votes >= agreement:
            break
    return pair, found


def _by_speed(measured: Sequence[Measured], agreement: float) -> list[dict[str, str]]:
    """Pairs of backends that may agree, the fastest first; the networks as they were loaded come last."""
    by_role: dict[str, list[Measured]] = {}
    for one in measured:
        by_role.setdefault(one.role, []).append(one)
    pairs: list[list[Measured]] = [[]]
    for ones in by_role.values():
        pairs = [[*pair, one] for pair in pairs for one in ones]
    alike = [pair for pair in pairs if sum(1 - one.votes for one in pair) <= 1 - agreement + 1e-12]
    alike.sort(key=lambda pair: sum(1 / one.draws_per_second for one in pair))
    names = [{one.role: one.backend for one in pair} for pair in alike]
    plain = dict.fromkeys(by_role, backends.PLAIN)
    return [*names[: names.index(plain)], plain]

"""The stopping rules by name: what a person writes as ``stop="table:0,0.25,0.5"``, parsed and put back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from smoothcert.errors import InvalidInput, UnknownName

Kind = Literal["fixed", "table", "radius", "predict", "curve", "anytime"]
KINDS: tuple[Kind, ...] = ("fixed", "table", "radius", "predict", "curve", "anytime")
LOOKING: tuple[Kind, ...] = ("table", "radius", "predict")  # those that look at the votes while they are made
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)  # the radii of the field's tables
TOLERANCE = 0.02  # radius a curve may lose against all draws, in units of sigma
_TASKS = {
    "certify": KINDS[:1] + KINDS[1:3] + KINDS[4:],
    "predict": ("fixed", "predict"),
    "encode": ("fixed",),
}


@dataclass(frozen=True)
class StopRule:
    """When the draws of an image end.

    Attributes:
        kind: ``fixed`` (after n draws), ``table`` (when every radius of a grid is decided), ``radius`` (when
            one is), ``predict`` (when the answer is known), ``curve`` (a pilot plans the number of draws for
            the radius itself), ``anytime`` (whenever somebody likes).
        radii: of ``table`` and ``radius``, ascending, L2 on pixels in [0, 1].
        tolerance: of ``curve``, in units of sigma.
    """

    kind: Kind
    radii: tuple[float, ...] = ()
    tolerance: float | None = None

    def __str__(self) -> str:
        given = self.radii if self.tolerance is None else (self.tolerance,)
        return f"{self.kind}:{','.join(_plain(value) for value in given)}" if given else self.kind


def parse_stop(text: str, task: str = "certify") -> StopRule:
    """Read ``fixed``, ``table:0,0.25``, ``table``, ``radius:0.5``, ``predict``, ``curve:0.02``, ``anytime``.

    Raises:
        UnknownName: no such rule. InvalidInput: numbers that cannot be, or a rule of the other task.
    """
    name, colon, rest = text.partition(":")
    kind = next((known for known in KINDS if known == name), None)
    if kind is None:
        raise UnknownName.among("stopping rule", name, KINDS)
    if kind not in _TASKS[task]:
        usable = " or ".join(f"'{known}'" for known in _TASKS[task])
        raise InvalidInput(
            f"stop = {text!r} for {task}", "that rule decides something else", f"Write {usable}"
        )
    numbers = _numbers(text, rest) if colon else ()
    if kind in ("table", "radius"):
        return StopRule(kind, _radii(text, kind, numbers))
    if kind == "curve":
        tolerance = numbers[0] if numbers else TOLERANCE
        if len(numbers) > 1 or not 0.0 < tolerance <= 1.0:
            raise InvalidInput(
                f"stop = {text!r}",
                "a curve loses one share of sigma, more than 0 and at most 1",
                "Write curve:0.02",
            )
        return StopRule(kind, tolerance=tolerance)
    if numbers or colon:
        raise InvalidInput(f"stop = {text!r}", f"the rule {kind!r} takes no numbers", f"Write {kind}")
    return StopRule(kind)


def _radii(text: str, kind: str, numbers: tuple[float, ...]) -> tuple[float, ...]:
    radii = tuple(sorted(set(numbers))) or (GRID if kind == "table" else ())
    if not radii or not all(0.0 <= radius < math.inf for radius in radii):
        raise InvalidInput(
            f"stop = {text!r}", "it needs finite radii >= 0 to decide", f"Write {kind}:" + _example(kind)
        )
    if kind == "radius" and len(radii) > 1:
        raise InvalidInput(
            f"stop = {text!r}", "'radius' decides one radius", f"Write table:{text.partition(':')[2]}"
        )
    return radii


def _example(kind: str) -> str:
    return "0.5" if kind == "radius" else "0,0.25,0.5"


def _numbers(text: str, rest: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) + 0.0 for part in rest.split(","))  # -0 is written 0
    except ValueError as error:
        raise InvalidInput(
            f"stop = {text!r}", f"{rest!r} is no list of numbers", "Write for example table:0,0.25,0.5"
        ) from error


def _plain(value: float) -> str:
    return repr(value).removesuffix(".0")

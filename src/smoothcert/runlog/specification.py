"""What a run is: everything that changes its result, fixed before the first draw. Frozen pydantic models.

The identity of a run is the SHA-256 of the canonical JSON of its specification. What does not change the
result (host, times, library versions beside those named) is kept beside it as the environment.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from smoothcert.bounds.discretisation import grid_error
from smoothcert.bounds.sequential.looks import MOST_DRAWS
from smoothcert.certificates.course import Design
from smoothcert.certificates.designs import design, usual
from smoothcert.certificates.rules import LOOKING, StopRule, parse_stop
from smoothcert.errors import InvalidInput, RunFileError

FORMATS = (1, 2)  # 2: with a stopping rule; runs with fixed numbers of draws are written as ever


_SELECTING = ("fixed", "curve", "anytime")
_SINCE_2 = {"label_aware": False, "ratio": None, "gate": None, "futility": None}
_ADVICE = {
    "n": "Write for example n=1000 (a plain whole number)",
    "n0": "Write for example n0=100",
    "": "Write for example n0=100, n=1000",
    "alpha": "Write for example alpha=0.001",
    "sigma": "Write for example sigma=0.25",
    "seed": "Write a whole number from 0 to 2**64 - 1",
    "bound": "Write 'one' or 'pair'",
    "stop": "Write for example stop='table:0,0.25,0.5' or stop='fixed'",
    "futility": "Write for example futility=0.01",
    "ratio": "Write for example ratio=1.1",
    "gate": "Write for example gate=0.05",
    "batch": "Write 2 or more: a batch of one rounds differently",
    "threads": "Write 1 or more",
}


class _Frozen(BaseModel):
    """A part of a specification; a value that cannot be is one ``InvalidInput`` that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            problem = error.errors()[0]
            where = str(problem["loc"][0]) if problem["loc"] else ""
            shown = [where] if where in values else [key for key in ("task", "n0", "n") if key in values]
            given = ", ".join(f"{key}={values[key]!r}" for key in shown) or type(self).__name__
            why = str(problem["msg"]).removeprefix("Value error, ")
            why = why[0].lower() + why[1:]
            raise InvalidInput(given, why, _ADVICE.get(where, "Correct that value")) from error


class DataSpec(_Frozen):
    """Which images, by name and by hash. ``levels`` is L of integer images, ``None`` for float ones."""

    name: str
    examples: int = Field(ge=1)
    levels: int | None = Field(ge=1)
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    sha256: str


class ComponentSpec(_Frozen):
    """A classifier or denoiser: where it came from, its settings, and the SHA-256 of its weights.

    ``sha256`` is ``None`` for a plain function, whose code cannot be hashed in a way that proves anything.
    """

    source: str
    sha256: str | None
    settings: dict[str, Any] = {}


class NoiseSpec(_Frozen):
    """The smoothing noise and its streams."""

    kind: Literal["grid", "float"]
    sigma: float = Field(gt=0.0)
    seed: int = Field(ge=0, lt=2**64)
    stream: Literal["philox4x64-1"] = "philox4x64-1"


class RuleSpec(_Frozen):
    """The statistics: how many draws decide what, at which error probability per image.

    ``n`` is the number of estimation draws where it is fixed, and the most an image may take elsewhere.
    ``ratio``, ``gate`` and ``futility`` belong to the rules that use them (``certificates.designs``).
    """

    task: Literal["certify", "predict"]
    alpha: float = Field(gt=0.0, lt=1.0)
    n0: int = Field(ge=0)
    n: int = Field(ge=1, le=10**9)
    bound: Literal["one", "pair"] = "one"
    stop: str = "fixed"
    label_aware: bool = False
    ratio: float | None = Field(default=None, gt=1.0, le=10.0)
    gate: float | None = Field(default=None, gt=0.0, le=1.0)
    futility: float | None = Field(default=None, ge=0.0, lt=0.5)

    @model_validator(mode="after")
    def _consistent(self) -> RuleSpec:
        kind = self.rule.kind
        if (self.task == "certify" and kind in _SELECTING) != (self.n0 >= 1):
            raise ValueError(
                "certify needs n0 >= 1 selection draws where the number of draws is fixed, planned or open; "
                "the other rules and predict set none aside (n0 = 0)"
            )
        if kind in LOOKING and self.n > MOST_DRAWS:
            raise ValueError(f"exact boundaries stop at n = {MOST_DRAWS:,} draws")
        if self.label_aware and kind not in ("table", "radius"):
            raise ValueError("only 'table' and 'radius' can be label-aware")
        used = {"ratio": LOOKING, "gate": LOOKING, "futility": (*LOOKING, "curve")}
        for name, kinds in used.items():
            if (getattr(self, name) is not None) != (kind in kinds):
                raise ValueError(f"{name} belongs to the rules {', '.join(kinds)}, and they need it")
        return self

    @field_validator("stop")
    @classmethod
    def _canonical_stop(cls, stop: str, info: ValidationInfo) -> str:
        return str(parse_stop(stop, info.data.get("task", "certify")))

    @classmethod
    def settle(
        cls,
        task: Literal["certify", "predict"],
        *,
        stop: str = "fixed",
        alpha: float = 0.001,
        n0: int | None = None,
        n: int | None = None,
        bound: str = "one",
        label_aware: bool = False,
        futility: float | None = None,
    ) -> RuleSpec:
        """A rule with what the caller left open (``None``) at the rule's usual value."""
        usually = usual(parse_stop(stop, task), task)
        return cls(
            task=task,
            alpha=alpha,
            n0=usually.n0 if n0 is None else n0,
            n=usually.n if n is None else n,
            bound=bound,
            stop=stop,
            label_aware=label_aware,
            ratio=usually.ratio,
            gate=usually.gate,
            futility=usually.futility if futility is None else futility,
        )

    @property
    def rule(self) -> StopRule:
        """The stopping rule, parsed."""
        return parse_stop(self.stop, self.task)

    @property
    def fixed(self) -> bool:
        """Whether every image has the same number of draws, known beforehand."""
        return self.rule.kind == "fixed"

    @property
    def stages(self) -> tuple[tuple[str, int], ...]:
        """Stage names with their numbers of draws (the most, where they are not fixed), in order."""
        if self.task == "predict":
            return (("prediction", self.n),)
        return (*((("selection", self.n0),) if self.n0 else ()), ("estimation", self.n))

    def design(self, *, alpha: float, sigma: float, noise_error: float) -> Design:
        """The design this rule fixes, at its own alpha or another."""
        return design(
            self.rule,
            n0=self.n0,
            n=self.n,
            alpha=alpha,
            bound=self.bound,
            sigma=sigma,
            noise_error=noise_error,
            ratio=self.ratio,
            gate=self.gate,
            futility=self.futility,
            label_aware=self.label_aware,
        )


class ExecutionSpec(_Frozen):
    """How the networks are evaluated: settled before the first draw, because rounding depends on it."""

    batch: int = Field(ge=2)
    threads: int = Field(ge=1)
    device: str
    dtype: Literal["float32", "bf16-mixed", "fp16-mixed"] = "float32"
    libraries: dict[str, str]


class Specification(_Frozen):
    """Everything that changes the result of a run."""

    data: DataSpec
    classifier: ComponentSpec
    denoiser: ComponentSpec | None
    noise: NoiseSpec
    rule: RuleSpec
    execution: ExecutionSpec

    @property
    def format(self) -> int:
        """The format a run with this specification is written in: the oldest that can say it."""
        return 1 if self.rule.fixed else 2

    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces, shortest round-trip floats."""
        return _compact(self._plain())

    def identity(self) -> str:
        """SHA-256 of the canonical JSON, less the number of draws where that may be raised later."""
        plain = self._plain()
        if self.rule.rule.kind == "anytime":
            del plain["rule"]["n"]
        return hashlib.sha256(_compact(plain).encode()).hexdigest()

    def noise_error(self) -> float:
        """Distance of the noise to exact Gaussian noise; float noise makes no claim and has none."""
        if self.noise.kind == "float" or self.data.levels is None:
            return 0.0
        channels, height, width = self.data.shape
        return grid_error(self.noise.sigma, self.data.levels, channels * height * width)

    def design(self, alpha: float | None = None) -> Design:
        """What decides every image, at the specification's alpha or another one."""
        level = self.rule.alpha if alpha is None else alpha
        return self.rule.design(alpha=level, sigma=self.noise.sigma, noise_error=self.noise_error())

    def _plain(self) -> dict[str, Any]:
        plain = self.model_dump(mode="json") | {"format": self.format}
        if self.format == 1:
            plain["rule"] = {key: value for key, value in plain["rule"].items() if key not in _SINCE_2}
        return plain

    @classmethod
    def parse(cls, text: str) -> Specification:
        """Read canonical JSON; ``RunFileError`` for anything else, or for a newer format."""
        try:
            values = json.loads(text)
            found = values.pop("format", None)
            if found not in FORMATS:
                raise RunFileError(
                    f"a run file of format {found!r}",
                    f"this version reads the formats {' and '.join(map(str, FORMATS))}",
                    "Install the version of smoothcert that wrote it, or a newer one",
                )
            return cls.model_validate(values)
        except (ValueError, AttributeError) as error:
            raise RunFileError(
                "the specification stored in the run file",
                f"cannot be read ({error})",
                "Restore the file from a copy",
            ) from error

    def difference(self, other: Specification) -> list[str]:
        """Readable lines, one a field that differs: ``rule.n: stored 1000, asked for 2000``."""
        mine, theirs = _flat(self._plain()), _flat(other._plain())
        return [
            f"{key}: stored {mine.get(key, 'nothing')}, asked for {theirs.get(key, 'nothing')}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def _compact(plain: dict[str, Any]) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        return {prefix: json.dumps(value)}
    flat: dict[str, str] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat

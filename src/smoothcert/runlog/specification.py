"""What a run is: everything that changes its result, fixed before the first draw. Frozen pydantic models.

The identity of a run is the SHA-256 of the canonical JSON of its specification. What does not change the
result (host, times, library versions beside those named) is kept beside it as the environment.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from smoothcert.errors import InvalidInput, RunFileError

FORMAT = 1


_ADVICE = {
    "n": "Write for example n=1000 (a plain whole number)",
    "n0": "Write for example n0=100",
    "": "Write for example n0=100, n=1000",
    "alpha": "Write for example alpha=0.001",
    "sigma": "Write for example sigma=0.25",
    "seed": "Write a whole number from 0 to 2**64 - 1",
    "bound": "Write 'one' or 'pair'",
    "stop": "Write 'fixed'",
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
    """The statistics: how many draws decide what, at which error probability per image."""

    task: Literal["certify", "predict"]
    alpha: float = Field(gt=0.0, lt=1.0)
    n0: int = Field(ge=0)
    n: int = Field(ge=1, le=10**9)
    bound: Literal["one", "pair"] = "one"
    stop: Literal["fixed"] = "fixed"

    @model_validator(mode="after")
    def _selection_exists(self) -> RuleSpec:
        if (self.task == "certify") != (self.n0 >= 1):
            raise ValueError("certify needs n0 >= 1 selection draws, and predict uses none (n0 = 0)")
        return self

    @property
    def stages(self) -> tuple[tuple[str, int], ...]:
        """Stage names with their numbers of draws, in the order they are drawn."""
        if self.task == "predict":
            return (("prediction", self.n),)
        return (("selection", self.n0), ("estimation", self.n))


class ExecutionSpec(_Frozen):
    """How the networks are evaluated: settled before the first draw, because rounding depends on it."""

    batch: int = Field(ge=2)
    threads: int = Field(ge=1)
    device: str
    dtype: Literal["float32", "bf16-mixed"] = "float32"
    libraries: dict[str, str]


class Specification(_Frozen):
    """Everything that changes the result of a run."""

    format: int = FORMAT
    data: DataSpec
    classifier: ComponentSpec
    denoiser: ComponentSpec | None
    noise: NoiseSpec
    rule: RuleSpec
    execution: ExecutionSpec

    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces, shortest round-trip floats."""
        return json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False
        )

    def identity(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @classmethod
    def parse(cls, text: str) -> Specification:
        """Read canonical JSON; ``RunFileError`` for anything else, or for a newer format."""
        try:
            found = json.loads(text).get("format")
            if found != FORMAT:
                raise RunFileError(
                    f"a run file of format {found!r}",
                    f"this version reads format {FORMAT}",
                    "Install the version of smoothcert that wrote it, or a newer one",
                )
            return cls.model_validate_json(text)
        except (ValueError, AttributeError) as error:
            raise RunFileError(
                "the specification stored in the run file",
                f"cannot be read ({error})",
                "Restore the file from a copy",
            ) from error

    def difference(self, other: Specification) -> list[str]:
        """Readable lines, one a field that differs: ``rule.n: stored 1000, asked for 2000``."""
        mine, theirs = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        return [
            f"{key}: stored {mine.get(key, 'nothing')}, asked for {theirs.get(key, 'nothing')}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        return {prefix: json.dumps(value)}
    flat: dict[str, str] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat

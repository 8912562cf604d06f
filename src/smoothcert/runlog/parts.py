"""The parts of a specification: data, models, head, noise and execution. Frozen pydantic models."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from smoothcert.errors import InvalidInput

Rows = npt.NDArray[np.float64]
_ADVICE = {
    "n": "Write for example n=1000 (a plain whole number)",
    "n0": "Write for example n0=100",
    "alpha": "Write for example alpha=0.001",
    "sigma": "Write for example sigma=0.25",
    "seed": "Write a whole number from 0 to 2**64 - 1",
    "bound": "Write 'one' or 'pair'",
    "stop": "Write for example stop='table:0,0.25,0.5' or stop='fixed'",
    "futility": "Write for example futility=0.01",
    "ratio": "Write for example ratio=1.1",
    "gate": "Write for example gate=0.05",
    "decision": "Write 'auto', 'votes', 'margin' or 'dual'",
    "served": "Write for example served=1000, the draws of the feature that is used",
    "batch": "Write 2 or more: a batch of one rounds differently",
    "threads": "Write 1 or more",
}


class Frozen(BaseModel):
    """A part of a specification; a value that cannot be is one ``InvalidInput`` that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    advice: ClassVar[str] = "Correct that value"  # where no single value is to blame

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
            raise InvalidInput(given, why, _ADVICE.get(where, self.advice)) from error


class DataSpec(Frozen):
    """Which images, by name and by hash. ``levels`` is L of integer images, ``None`` for float ones."""

    name: str
    examples: int = Field(ge=1)
    levels: int | None = Field(ge=1)
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    sha256: str


class ComponentSpec(Frozen):
    """A classifier or denoiser: where it came from, its settings, and the SHA-256 of its weights.

    ``sha256`` is ``None`` for a plain function, whose code cannot be hashed in a way that proves anything.
    """

    source: str
    sha256: str | None
    settings: dict[str, Any] = {}


class HeadSpec(Frozen):
    """A head that answers with the nearest of its prototypes, which are part of the specification.

    ``prototypes`` are float64 unit rows, one a class, as little-endian base64.
    """

    source: str
    classes: tuple[str, ...]
    prototypes: str
    settings: dict[str, Any] = {}
    advice: ClassVar[str] = "Give a row for each of two classes or more, divided by its norm"

    @classmethod
    def of(cls, source: str, classes: Sequence[str], prototypes: Rows, settings: dict[str, Any]) -> HeadSpec:
        """From an array ``(C, k)``."""
        text = base64.b64encode(np.ascontiguousarray(prototypes, dtype="<f8").tobytes()).decode()
        return cls(source=source, classes=tuple(classes), prototypes=text, settings=settings)

    @model_validator(mode="after")
    def _readable(self) -> HeadSpec:
        rows = self.rows()
        lengths = np.sqrt((rows * rows).sum(axis=1))
        if len(self.classes) < 2 or not (np.abs(lengths - 1.0) < 1e-6).all():
            raise ValueError("a head has two classes or more, and a prototype of norm 1 for each")
        return self

    def rows(self) -> Rows:
        """The prototypes ``(C, k)``."""
        found = np.frombuffer(base64.b64decode(self.prototypes, validate=True), dtype="<f8")
        rows: Rows = found.reshape(len(self.classes), -1)
        return rows


class NoiseSpec(Frozen):
    """The smoothing noise and its streams."""

    kind: Literal["grid", "float"]
    sigma: float = Field(gt=0.0)
    seed: int = Field(ge=0, lt=2**64)
    stream: Literal["philox4x64-1"] = "philox4x64-1"


class ExecutionSpec(Frozen):
    """How the networks are evaluated: settled before the first draw, because rounding depends on it."""

    batch: int = Field(ge=2)
    threads: int = Field(ge=1)
    device: str
    dtype: Literal["float32", "bf16-mixed", "fp16-mixed"] = "float32"
    libraries: dict[str, str]

"""What a run is: everything that changes its result, fixed before the first draw. Frozen pydantic models.

The identity of a run is the SHA-256 of the canonical JSON of its specification. What does not change the
result (host, times, library versions beside those named) is kept beside it as the environment.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar

from pydantic import model_validator

from smoothcert.bounds.discretisation import grid_error
from smoothcert.certificates.course import Design
from smoothcert.errors import RunFileError
from smoothcert.runlog.parts import ComponentSpec, DataSpec, ExecutionSpec, Frozen, HeadSpec, NoiseSpec
from smoothcert.runlog.rule import Decide, RuleSpec

__all__ = [
    "FORMATS",
    "ComponentSpec",
    "DataSpec",
    "Decide",
    "ExecutionSpec",
    "HeadSpec",
    "NoiseSpec",
    "RuleSpec",
    "Specification",
]

FORMATS = (1, 2, 3)  # 2: with a stopping rule; 3: features. Other runs are written as ever


_SINCE_2 = ("label_aware", "ratio", "gate", "futility")
_SINCE_3 = ("decision", "served")
_PARTS_SINCE_3 = ("encoder", "mapper", "head")


class Specification(Frozen):
    """Everything that changes the result of a run."""

    data: DataSpec
    classifier: ComponentSpec | None = None
    denoiser: ComponentSpec | None
    encoder: ComponentSpec | None = None
    mapper: ComponentSpec | None = None
    head: HeadSpec | None = None
    noise: NoiseSpec
    rule: RuleSpec
    execution: ExecutionSpec
    advice: ClassVar[str] = "Give an encoder to encode, a classifier for the rest, and decision with a head"

    @model_validator(mode="after")
    def _whole(self) -> Specification:
        encodes = self.rule.task == "encode"
        if encodes != (self.encoder is not None) or encodes == (self.classifier is not None):
            raise ValueError("a run that encodes has an encoder, the others a classifier")
        if not encodes and (self.mapper or self.head):
            raise ValueError("mappers and heads belong to runs that encode")
        if encodes and (self.head is None) != (self.rule.decision is None):
            raise ValueError("a head and a way to certify its answer (decision) belong together")
        return self

    @property
    def base(self) -> ComponentSpec:
        """The classifier or encoder."""
        found = self.classifier or self.encoder
        assert found is not None, "the validator asks for one"
        return found

    @property
    def format(self) -> int:
        """The format a run with this specification is written in: the oldest that can say it."""
        return 3 if self.rule.task == "encode" else 1 if self.rule.fixed else 2

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
        error = self.noise_error()
        return self.rule.design(alpha=level, sigma=self.noise.sigma, noise_error=error, head=self.head)

    def _plain(self) -> dict[str, Any]:
        plain = self.model_dump(mode="json") | {"format": self.format}
        later = (*_SINCE_2, *_SINCE_3) if self.format == 1 else _SINCE_3 if self.format == 2 else ()
        plain["rule"] = {key: value for key, value in plain["rule"].items() if key not in later}
        parts = _PARTS_SINCE_3 if self.format < 3 else ("classifier",)
        return {key: value for key, value in plain.items() if key not in parts}

    @classmethod
    def parse(cls, text: str) -> Specification:
        """Read canonical JSON; ``RunFileError`` for anything else, or for a newer format."""
        try:
            values = json.loads(text)
            found = values.pop("format", None)
            if found not in FORMATS:
                raise RunFileError(
                    f"a run file of format {found!r}",
                    f"this version reads the formats {', '.join(map(str, FORMATS))}",
                    "Install the version of smoothcert that wrote it, or a newer one",
                )
            specification = cls.model_validate(values)
            if specification.format != found:
                raise ValueError(f"format {found} cannot say it")
            return specification
        except (ValueError, AttributeError) as error:
            raise RunFileError(
                "the specification stored in the run file",
                f"cannot be read ({error})",
                "Restore the file from a copy",
            ) from error

    def difference(self, other: Specification, words: tuple[str, str] = ("stored", "asked for")) -> list[str]:
        """Readable lines, one a field that differs: ``rule.n: stored 1000, asked for 2000``."""
        mine, theirs = _flat(self._plain()), _flat(other._plain())
        return [
            f"{key}: {words[0]} {mine.get(key, 'nothing'):.80}, {words[1]} {theirs.get(key, 'nothing'):.80}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key) and _telling(key, mine, theirs)
        ]


def _telling(key: str, mine: dict[str, str], theirs: dict[str, str]) -> bool:
    """Of a part that one of two specifications does not have, its name says enough."""
    part = key.partition(".")[0]
    absent = any(side.get(part) == "null" for side in (mine, theirs))
    return (
        not absent or key == f"{part}.source" or not any(f"{part}.source" in side for side in (mine, theirs))
    )


def _compact(plain: dict[str, Any]) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        return {prefix: json.dumps(value)}
    flat: dict[str, str] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat

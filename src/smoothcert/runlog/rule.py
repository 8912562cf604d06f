"""The statistics of a run: how many draws decide what, at which error probability per image."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from smoothcert.bounds.sequential.looks import MOST_DRAWS
from smoothcert.certificates.course import Design
from smoothcert.certificates.designs import design, usual
from smoothcert.certificates.encoding import Encoding
from smoothcert.certificates.rules import LOOKING, StopRule, parse_stop
from smoothcert.runlog.parts import Frozen, HeadSpec

Task = Literal["certify", "predict", "encode"]
Decide = Literal["auto", "votes", "margin", "dual"]
_SELECTING = ("fixed", "curve", "anytime")


class RuleSpec(Frozen):
    """The statistics: how many draws decide what, at which error probability per image.

    ``n`` is the number of estimation draws where it is fixed, and the most an image may take elsewhere.
    ``ratio``, ``gate`` and ``futility`` belong to the rules that use them (``certificates.designs``).
    """

    task: Task
    alpha: float = Field(gt=0.0, lt=1.0)
    n0: int = Field(ge=0)
    n: int = Field(ge=1, le=10**9)
    bound: Literal["one", "pair"] = "one"
    stop: str = "fixed"
    label_aware: bool = False
    ratio: float | None = Field(default=None, gt=1.0, le=10.0)
    gate: float | None = Field(default=None, gt=0.0, le=1.0)
    futility: float | None = Field(default=None, ge=0.0, lt=0.5)
    decision: Decide | None = None
    served: int | None = Field(default=None, ge=1)
    advice: ClassVar[str] = "Write for example n0=100, n=1000"

    @model_validator(mode="after")
    def _consistent(self) -> RuleSpec:
        kind = self.rule.kind
        if self.task == "encode":
            self._check_encode(kind)
        elif (self.task == "certify" and kind in _SELECTING) != (self.n0 >= 1):
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

    def _check_encode(self, kind: str) -> None:
        if kind != "fixed" or self.bound != "one":
            raise ValueError(
                "features are certified after fixed numbers of draws (stop='fixed'), bound='one'"
            )
        if self.n0 < 2:
            raise ValueError("encode needs n0 >= 2 pilot draws to choose what is counted of the others")

    @field_validator("stop")
    @classmethod
    def _canonical_stop(cls, stop: str, info: ValidationInfo) -> str:
        return str(parse_stop(stop, info.data.get("task", "certify")))

    @classmethod
    def settle(
        cls,
        task: Task,
        *,
        stop: str = "fixed",
        alpha: float = 0.001,
        n0: int | None = None,
        n: int | None = None,
        bound: str = "one",
        label_aware: bool = False,
        futility: float | None = None,
        decision: Decide | None = None,
        served: int | None = None,
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
            decision=decision,
            served=served,
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
    def open_ended(self) -> bool:
        """Whether an image that has its draws may be continued with more."""
        return self.rule.kind == "anytime"

    @property
    def stages(self) -> tuple[tuple[str, int], ...]:
        """Stage names with their numbers of draws (the most, where they are not fixed), in order."""
        if self.task == "predict":
            return (("prediction", self.n),)
        clean = (("reference", 1),) if self.task == "encode" else ()
        return (*clean, *((("selection", self.n0),) if self.n0 else ()), ("estimation", self.n))

    def design(
        self, *, alpha: float, sigma: float, noise_error: float, head: HeadSpec | None = None
    ) -> Design:
        """The design this rule fixes, at its own alpha or another."""
        if self.task == "encode":
            return Encoding(
                n0=self.n0,
                n=self.n,
                alpha=alpha,
                sigma=sigma,
                noise_error=noise_error,
                prototypes=head.rows() if head else None,
                decision=self.decision or "auto",
                served=self.served,
                planned_for=self.alpha,
            )
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

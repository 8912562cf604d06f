"""Re-derive what a run claims from what it stores, trusting nothing else: the auditor's check, no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from smoothcert.certificates.feature import LAMBDA_SHARE
from smoothcert.errors import SmoothcertError
from smoothcert.runlog.facts import same_facts
from smoothcert.runlog.reading import describe, results
from smoothcert.runlog.results import Results
from smoothcert.runlog.roster import Roster
from smoothcert.runlog.specification import RuleSpec
from smoothcert.runlog.standing import replayed
from smoothcert.runlog.store import RunReader


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what, whether it holds, and the evidence."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Verification:
    """The outcome of ``verify``: every check, the claim in plain words, and the certificates behind it."""

    checks: tuple[Check, ...]
    claim: str
    results: Results | None

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)


def verify(run: RunReader, *, alpha: float | None = None) -> Verification:
    """Check a run file against its own claims; a failed check is reported, never raised.

    Looks at the file's integrity, the hash of the specification, of the image list and of every row; that
    each image's draws are exactly those specified, each once; the alpha accounting; and recomputes every
    certificate from the counts.
    """
    checks = tuple(_guarded(name, check, run) for name, check in _CHECKS)
    if not all(check.passed for check in checks):
        return Verification(checks, "This run file does not support any claim: a check failed.", None)
    found = results(run, alpha=alpha)
    checks += (_accounting(run, found),)
    return Verification(checks, claim(run, found), found)


def claim(run: RunReader, found: Results) -> str:
    """What is proved, for whom it holds and for whom not, in one plain paragraph."""
    spec = run.specification
    per = f"with confidence {1 - (found.alpha or 0):.6g} for each image separately"
    which = "" if run.shard.whole else f"shard {run.shard} of "
    threat = (
        "The threat is any change of the image that stays on its grid of "
        f"{spec.data.levels + 1} grey levels and has L2 norm at most the radius, on pixels scaled to [0, 1]"
        if spec.noise.kind == "grid" and spec.data.levels
        else "The threat is any change of L2 norm at most the radius on pixels in [0, 1], leaving aside "
        "leaks through float addition, against which float noise gives no protection"
    )
    if not found.outcomes:
        return (
            f"Nothing is claimed yet: none of {found.planned} images of {which}{describe(spec)} is finished."
        )
    threat = "" if spec.rule.task == "predict" else f"{threat}. "
    parts = [
        f"{len(found.outcomes)} of {found.planned} images of {which}{describe(spec)}.",
        _statement(spec.rule.task, per, spec.noise.sigma),
        f"{threat}Gaussian noise sigma = {spec.noise.sigma:g}, {_draws_made(spec.rule)}, alpha = "
        f"{spec.rule.alpha:g}, all fixed before the first draw.",
        *_abstentions(run, found),
    ]
    models = {
        "classifier": spec.classifier,
        "encoder": spec.encoder,
        "denoiser": spec.denoiser,
        "mapper": spec.mapper,
    }
    unhashed = [name for name, part in models.items() if part and not part.sha256]
    if unhashed:
        parts.append(
            f"The {' and the '.join(unhashed)} is a function without weights to hash: that it is the one "
            "named and stayed the same during the run is taken on trust."
        )
    if found.label_aware:
        parts.append(
            "LABEL-AWARE: only the true class of each image was tested; this supports the certified "
            "accuracy, and nothing is said about the images that are not certified."
        )
    if found.alpha_post_hoc:
        parts.append(
            f"POST HOC: these certificates were recomputed at alpha = {found.alpha:g} after the draws."
        )
    if which:
        parts.append(
            f"SHARD {run.shard}: only these images of the run's {spec.data.examples}; "
            "'smoothcert merge' joins all shards to the whole run."
        )
    if not found.complete:
        parts.append(f"INCOMPLETE: {(found.planned or 0) - len(found.outcomes)} images are not finished.")
    return " ".join(parts)


def _abstentions(run: RunReader, found: Results) -> list[str]:
    """How many images nothing is claimed for, and which claims there are beside the first."""
    spec, abstained = run.specification, sum(o.predicted is None for o in found.outcomes)
    if spec.rule.task != "encode":
        return [f"{abstained} images are abstentions, for which nothing is claimed."]
    silent = sum(o.feature is not None and not o.feature.radius(1e-3) for o in found.outcomes)
    parts = [f"{silent} features are abstentions: no positive cosine is claimed at any radius."]
    if spec.rule.served:
        parts.append(
            f"For the feature that is served, a mean of {spec.rule.served:,} fresh draws, the lower 'served' "
            "cosines hold, with the same confidence again for the draws served."
        )
    if spec.head:
        parts.append(
            f"Separately, at the same confidence, the answer of the head {spec.head.source} is constant "
            f"within its own radius; {abstained} images are abstentions of the head."
        )
    return parts


def _draws_made(rule: RuleSpec) -> str:
    if rule.fixed:
        return f"n0 = {rule.n0:,} and n = {rule.n:,} draws an image"
    if rule.rule.kind == "anytime":
        return f"n0 = {rule.n0:,} and any number of further draws, so far at most {rule.n:,} an image"
    selection = f"n0 = {rule.n0:,} and " if rule.n0 else ""
    return f"{selection}at most {rule.n:,} draws an image under the stopping rule '{rule.stop}'"


def _statement(task: str, per: str, sigma: float) -> str:
    if task == "encode":
        return (
            "Under any change of the image within a radius, the feature of the smoothed encoder (the "
            f"expectation of the unit features) keeps at least the stated cosine with what it was, {per}."
        )
    if task == "predict":
        return f"The answer given is the smoothed classifier's own answer, {per}."
    return f"Within its radius an image keeps the stated label under the smoothed classifier, {per}."


def _guarded(name: str, check: Callable[[RunReader], tuple[bool, str]], run: RunReader) -> Check:
    try:
        passed, detail = check(run)
    except SmoothcertError as error:
        passed, detail = False, str(error)
    return Check(name, passed, detail)


def _file(run: RunReader) -> tuple[bool, str]:
    found = run.integrity()
    return found == "ok", f"SQLite says: {found}"


def _identity(run: RunReader) -> tuple[bool, str]:
    recomputed = run.specification.identity()
    return recomputed == run.identity, f"SHA-256 {recomputed[:16]}..., stored {run.identity[:16]}..."


def _images(run: RunReader) -> tuple[bool, str]:
    images, data = len(Roster.read(run)), run.specification.data
    recomputed = run.data_hash()
    same = recomputed == data.sha256 and images == data.examples
    return (
        same,
        f"{images} images, SHA-256 {recomputed[:16]}..., specified {data.examples}, {data.sha256[:16]}...",
    )


def _rows(run: RunReader) -> tuple[bool, str]:
    count, wrong = 0, 0
    for row, digest in run.tallies():
        count += 1
        wrong += digest != row.digest(run.identity) or row.tally.total != row.draws
    return wrong == 0, f"{count} rows, {wrong} with a wrong hash or count"


def _design(run: RunReader) -> tuple[bool, str]:
    """The looks and boundaries stored at the start are those the specification fixes."""
    stored, derived = run.design_facts, json.loads(json.dumps(run.specification.design().facts()))
    if not derived:
        return not stored, f"the rule '{run.specification.rule.stop}' has no boundaries"
    wrong = sorted(
        key for key in stored.keys() | derived.keys() if not same_facts(stored.get(key), derived.get(key))
    )
    what = f"{len(derived['looks'])} looks from {derived['looks'][0]} to {derived['looks'][-1]:,} draws"
    levels = [found["level"] for found in derived.get("boundaries", [])]
    exact = f"; exact level of each boundary {min(levels):.3g} to {max(levels):.3g}" if levels else ""
    return not wrong, what + exact + (f"; stored otherwise: {', '.join(wrong)}" if wrong else "")


def _draws(run: RunReader) -> tuple[bool, str]:
    """Every stored draw was asked for by the rule, each once; unknown stages or images fail.

    So does a note that an image is finished which its draws do not bear out: the run would not continue it.
    """
    labels, design = Roster.read(run).labels_of(run.shard), run.specification.design()
    unproved = set(run.finished() or ())
    stray, finished = [], 0
    for example, standing in replayed(design, (row for row, _ in run.tallies()), labels):
        if example not in labels or standing.unasked:
            stray.append(example)
        if standing.course.need is None:
            finished += 1
            unproved.discard(example)
    part = "" if run.shard.whole else f"shard {run.shard}: "
    found = f"{part}{finished} of {len(labels)} images complete, {run.sums()[0]:,} draws"
    if stray:
        found += f", draws that the rule did not ask for in examples {stray[:5]}"
    if unproved:
        found += f", noted as finished without their draws: examples {sorted(unproved)[:5]}"
    return not (stray or unproved), found


def _classes(run: RunReader) -> tuple[bool, str]:
    named = all(label >= 0 for label in Roster.read(run).labels.values())
    return named, f"{run.nonfinite()} draws with a non-finite answer, counted against the certificates"


def _accounting(run: RunReader, found: Results) -> Check:
    rule = run.specification.rule
    if rule.task == "encode":
        what = f"{len(found.outcomes)} feature certificates recomputed, plans from the stored pilots"
        spent = _ENCODE + (_HEAD if run.specification.head else "")
        return Check("alpha accounting", True, f"{spent}; {what}")
    how = f"{_SPENT[rule.rule.kind if rule.task == 'certify' or not rule.fixed else 'sign test']}"
    if rule.label_aware and rule.bound == "one":
        how = "all of alpha on the true class, which is known before the draws, over all looks"
    detail = how.format(gate=rule.gate, bound=_BOUNDS[rule.bound], n0=rule.n0)
    allowance = (
        f"; allowance for the grid {run.specification.noise_error():.1e}" if rule.task == "certify" else ""
    )
    what = "certificates" if rule.task == "certify" else "predictions"
    return Check("alpha accounting", True, f"{detail}{allowance}; {len(found.outcomes)} {what} recomputed")


_BOUNDS = {"one": "all of alpha on p_A", "pair": "alpha/2 on each of p_A and p_B"}
_SPENT = {
    "fixed": "{bound}; n0 and n fixed, selection and estimation draws disjoint",
    "sign test": "all of alpha on one two-sided test; n fixed",
    "table": "{gate:g} alpha names the class, the rest tests it over all looks; giving up is not counted on",
    "radius": "{gate:g} alpha names the class, the rest tests it over all looks; giving up is not counted on",
    "predict": "alpha shared by the two-sided tests of all looks; giving up is not counted on",
    "curve": "{bound}; n0 fixed, n planned by the selection draws alone, estimation draws fresh",
    "anytime": "{bound}, for all numbers of draws at once; selection and estimation draws disjoint",
}

_ENCODE = (
    f"cosines: {1 - LAMBDA_SHARE:g} of alpha on the length m, {LAMBDA_SHARE:g} on the covariance; n0 and n "
    "fixed, pilot and estimation draws disjoint"
)
_HEAD = (
    "; head: alpha again, all of it on each rival, because only the one with the least true radius can fail"
)

_CHECKS: tuple[tuple[str, Callable[[RunReader], tuple[bool, str]]], ...] = (
    ("file integrity", _file),
    ("specification hash", _identity),
    ("image list", _images),
    ("row hashes", _rows),
    ("looks and boundaries", _design),
    ("draws", _draws),
    ("answers", _classes),
)

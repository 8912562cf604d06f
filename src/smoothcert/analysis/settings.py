"""What two runs must share before their numbers may stand for one method, and how that is put into words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import PurePath

from smoothcert.runlog.results import Results

_UNKNOWN = "?"
Fact = tuple[str, Callable[[Results], str]]


def setting(run: Results) -> Hashable:
    """Everything but sigma: data and model, which images with which labels, draws, alpha, completeness."""
    images = tuple((outcome.index, outcome.label) for outcome in run.outcomes)
    draws = (run.n0, run.n, run.alpha, run.alpha_post_hoc, run.stop, run.label_aware, run.decision, run.shard)
    return (run.description, images, draws, run.planned, run.truncated, certifies(run))


def certifies(run: Results) -> bool:
    """Whether the run has radii, not predictions alone."""
    return all(outcome.radius is not None for outcome in run.outcomes)


def images(run: Results) -> str:
    """``500``, ``34 of 100`` for a run that is not complete, or ``427 (log breaks off)``."""
    done = len(run.outcomes)
    if run.planned is not None and run.planned != done:
        return f"{done:,} of {run.planned:,}"
    return f"{done:,} (log breaks off)" if run.truncated else f"{done:,}"


def level(run: Results) -> str:
    """``0.001``, with a mark where alpha was chosen after the draws."""
    return _UNKNOWN if run.alpha is None else f"{run.alpha:g}" + (" (post hoc)" if run.alpha_post_hoc else "")


def number(value: int | None) -> str:
    """``100,000``, or a question mark where the source does not say."""
    return _UNKNOWN if value is None else f"{value:,}"


def draws(run: Results) -> str:
    """``100,000``, or ``at most 120,000`` where a stopping rule may end sooner."""
    return number(run.n) if run.stop in (None, "fixed") else f"at most {number(run.n)}"


def sigma(run: Results) -> str:
    """``0.25``, or a question mark."""
    return _UNKNOWN if run.sigma is None else f"{run.sigma:g}"


MODEL = "data and model"
_OPTIONS = re.compile(r"\?[^ ]*?(?=, | |$)")  # of a model's name: resnet20:file.th?mean=...&std=...

_FACTS: tuple[Fact, ...] = (
    (MODEL, lambda run: run.description or _UNKNOWN),
    ("images", images),
    ("shard", lambda run: run.shard or "none"),
    ("stop", lambda run: run.stop or "fixed"),
    ("n0", lambda run: number(run.n0)),
    ("n", draws),
    ("alpha", level),
    ("decision", lambda run: run.decision or "none"),
    ("label-aware", lambda run: "yes" if run.label_aware else "no"),
)

_DRAWS = ("stop", "n0", "n", "alpha")
_USUAL = {"stop": "fixed", "n0": "0"}  # not worth saying where all runs have it


def differing(runs: Sequence[Results]) -> list[Fact]:
    """The facts in which these runs differ, to be printed as columns.

    Where the facts are equal but the rows still cannot be told apart (two runs of one sigma, or equally many
    but different images), the run's name is a column too.
    """
    columns = [(name, read) for name, read in _FACTS if len({read(run) for run in runs}) > 1]
    columns = [(name, _short_models(runs) if name == MODEL else read) for name, read in columns]
    rows = {(sigma(run), *(read(run) for _, read in columns)) for run in runs}
    told_apart = len({setting(run) for run in runs}) == 1 or bool(columns)
    if len(rows) < len(runs) or not told_apart:
        columns.insert(0, ("run", _short_names(runs)))
    return columns


def shared(runs: Sequence[Results]) -> str:
    """The facts all these runs share, as the caption says them."""
    if not runs:
        return ""
    equal = {name: read(runs[0]) for name, read in _FACTS if len({read(run) for run in runs}) == 1}
    said = [part for part in (equal.get(MODEL, _common(runs)),) if part not in ("", _UNKNOWN)]
    said += [f"{equal['images']} images"] if "images" in equal else []
    said += [f"shard {equal['shard']}"] if equal.get("shard", "none") != "none" else []
    known = [name for name in _DRAWS if equal.get(name, _UNKNOWN) not in (_UNKNOWN, _USUAL.get(name))]
    said += [f"{name} = {equal[name]}".replace("= at most", "at most") for name in known]
    silent = [name for name in _DRAWS if equal.get(name) == _UNKNOWN]
    said += [f"{_listed(silent)} not stated by the source"] if silent else []
    return ", ".join(said) + "."


def _short_models(runs: Sequence[Results]) -> Callable[[Results], str]:
    """Data and model without the words with which all begin, and without options where names suffice."""
    common = _common(runs)

    def short(run: Results) -> str:
        return (run.description or _UNKNOWN)[len(common) :].lstrip(" ,")

    def bare(run: Results) -> str:
        return _OPTIONS.sub("", short(run))

    whole = {short(run) for run in runs}
    return bare if len({bare(run) for run in runs}) == len(whole) else short


def _common(runs: Sequence[Results]) -> str:
    """The whole words with which the descriptions of all runs begin, if each says more than them."""
    words = [re.split(r"(,? )", run.description or "") for run in runs]
    alike = list(itertools.takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False)))
    common = "".join(column[0] for column in alike).rstrip(" ,")
    return common if all(len(one) > len(alike) for one in words) else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def warnings(runs: Sequence[Results]) -> list[str]:
    """What a reader of the caption must not miss."""
    found = []
    if any(run.alpha_post_hoc for run in runs):
        found.append(
            "Post hoc: alpha was chosen after the draws, so these figures prove nothing at that level."
        )
    if any(run.shard for run in runs):
        found.append(
            "Shard: a part of the run's images alone; 'smoothcert merge' joins all shards to the whole run."
        )
    if any(run.label_aware for run in runs):
        found.append(
            "Label-aware: the true class alone was tested, so these runs support certified accuracy and no "
            "statement about images that are not counted."
        )
    if any(run.radii for run in runs):
        found.append("Radii were decided one by one; between them an image counts at the next smaller one.")
    if any(run.stop == "anytime" for run in runs):
        found.append("Anytime: the certificates hold for the draws made so far.")
    unfinished = [run for run in runs if not run.complete]
    if unfinished:
        found.append("Incomplete: some images are not finished.")
    if any(run.stop not in (None, "fixed", "anytime") for run in unfinished):
        found.append("Images that are soon decided finish first, so the shares so far are biased.")
    if len({frozenset(outcome.index for outcome in run.outcomes) for run in runs}) > 1:
        found.append("The runs cover different images.")
    if len({setting(run) for run in runs}) > 1:
        found.append("The runs differ in more than sigma.")
    return found


def _short_names(runs: Sequence[Results]) -> Callable[[Results], str]:
    """Last parts of the paths, as few as tell the runs apart."""
    parts = {run.name: PurePath(run.name).parts or (run.name,) for run in runs}
    depth = next(
        (d for d in range(1, 9) if len({p[-d:] for p in parts.values()}) == len(parts)),
        max(map(len, parts.values())),
    )
    return lambda run: "/".join(parts[run.name][-depth:])

"""``certify``, ``predict`` and ``encode`` over a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smoothcert import datasets
from smoothcert.engine.cluster import RayCluster
from smoothcert.engine.execute import Executor
from smoothcert.engine.job import prepare
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Dataset
from smoothcert.runlog.results import Results
from smoothcert.runlog.shard import Shard
from smoothcert.runlog.specification import Decide, RuleSpec
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder, decision_for, head_spec


def certify(
    smoothed: SmoothedClassifier,
    data: Dataset | str,
    directory: str | Path,
    *,
    stop: str = "fixed",
    n0: int | None = None,
    n: int | None = None,
    alpha: float = 0.001,
    bound: str = "one",
    label_aware: bool = False,
    futility: float | None = None,
    seed: int = 0,
    batch: int | None = None,
    threads: int | None = None,
    workers: int | None = None,
    executor: Executor | RayCluster | str = "local",
    shard: Shard | str | None = None,
    quiet: bool = True,
) -> Results:
    """For each image, with probability >= 1 - alpha, the answer is constant within its radius, or abstains.

    Everything observed goes to a run file in ``directory``; calling again with the same arguments continues
    an interrupted run, bit for bit as if it had not been interrupted.

    Args:
        smoothed: the smoothed classifier. data: the images, or the name of a data set.
        stop: when the draws of an image end, each rule at the same alpha (docs/how-many-samples.md):
            ``"fixed"`` after n; ``"table:0,0.25,0.5"`` when every radius of the grid is decided;
            ``"radius:0.5"`` when one is; ``"curve:0.02"`` after a pilot planned them for the radius itself,
            to 0.02 sigma; ``"anytime"`` never: the result holds whenever the run is interrupted, and a later
            call with a larger n goes on.
        n0: selection draws (100; a pilot of 1,000 for ``curve``; ``table`` and ``radius`` need none).
        n: estimation draws, of each image (100,000), or the most an image may take (120,000).
        alpha: error probability of each certificate.
        bound: ``"one"`` or ``"pair"`` (see ``certificates.certify``).
        label_aware: ``table`` and ``radius`` test the true class alone and drop an image when it cannot be
            proved. Sound for certified accuracy; images whose answer is another class get no radius.
        futility: give up on an image below this chance of success; never affects soundness (0.01).
        seed: names the noise streams.
        batch, threads: draws in one network call and threads for it; they belong to the specification.
        workers: network calls at a time on a CPU, by default one a core; any number gives the same result.
        executor: ``"local"``, or ``"ray"`` (or a ``RayCluster``) for all GPUs of this machine or a cluster:
            the same result to the bit on the same kind of device (docs/scaling.md).
        shard: ``"3/16"`` certifies a sixteenth of the images, into a directory of its own;
            ``runlog.merge_shards`` joins the sixteen to the very run that one process would have written.
        quiet: no progress bar.

    Raises:
        InvalidInput, UnsoundModel, ModelOutputError: what was given cannot be certified.
        SpecificationMismatch: ``directory`` holds another run. RunLocked: it is being written.
        Interrupted: Ctrl-C or SIGTERM. RunFileError: the disk failed.

    Source: CERTIFY of Cohen et al. 2019; THEORY 5 for the stopping rules.
    """
    _check_kind(smoothed, SmoothedClassifier, "certify")
    rule = RuleSpec.settle(
        "certify",
        stop=stop,
        alpha=alpha,
        n0=n0,
        n=n,
        bound=bound,
        label_aware=label_aware,
        futility=futility,
    )
    job = prepare(
        smoothed,
        data,
        directory,
        rule,
        seed=seed,
        batch=batch,
        threads=threads,
        workers=workers,
        executor=executor,
        shard=shard,
        quiet=quiet,
    )
    return job.run(quiet=quiet)


def predict(
    smoothed: SmoothedClassifier,
    data: Dataset | str,
    directory: str | Path,
    *,
    stop: str = "fixed",
    n: int | None = None,
    alpha: float = 0.001,
    seed: int = 0,
    batch: int | None = None,
    threads: int | None = None,
    workers: int | None = None,
    executor: Executor | RayCluster | str = "local",
    shard: Shard | str | None = None,
    quiet: bool = True,
) -> Results:
    """For each image, with probability >= 1 - alpha: the answer is the smoothed classifier's, or it abstains.

    ``stop="fixed"`` makes n draws (1,000); ``"predict"`` stops when the answer is known, after at most n
    (12,000). Other arguments, errors and resumption as for ``certify``. Source: PREDICT of Cohen et al. 2019.
    """
    _check_kind(smoothed, SmoothedClassifier, "predict")
    rule = RuleSpec.settle("predict", stop=stop, alpha=alpha, n=n)
    job = prepare(
        smoothed,
        data,
        directory,
        rule,
        seed=seed,
        batch=batch,
        threads=threads,
        workers=workers,
        executor=executor,
        shard=shard,
        quiet=quiet,
    )
    return job.run(quiet=quiet)


def encode(
    smoothed: SmoothedEncoder,
    data: Dataset | str,
    directory: str | Path,
    *,
    head: Any | None = None,
    decision: Decide = "auto",
    served: int | None = None,
    n0: int | None = None,
    n: int | None = None,
    alpha: float = 0.001,
    seed: int = 0,
    batch: int | None = None,
    threads: int | None = None,
    workers: int | None = None,
    executor: Executor | RayCluster | str = "local",
    shard: Shard | str | None = None,
    quiet: bool = True,
) -> Results:
    """For each image, with probability >= 1 - alpha, its feature keeps the stated cosines under attack.

    Args:
        smoothed: the smoothed encoder. data: the images, or the name of a data set.
        head: a ``ZeroShotHead`` with the class names of the data, whose answers are certified too.
        decision: how: ``"votes"``, ``"margin"``, ``"dual"``, or ``"auto"``, chosen on each image's pilot.
        served: draws of the feature that is used, for the certificate of that feature.
        n0: pilot draws (100). n: estimation draws (10,000).
        alpha: error probability of each claim about an image: its cosines, its answer.

    Other arguments, errors and resumption as for ``certify``. Source: THEORY 3.
    """
    _check_kind(smoothed, SmoothedEncoder, "encode")
    data = datasets.load(data) if isinstance(data, str) else data
    rule = encode_rule(head, decision=decision, served=served, n0=n0, n=n, alpha=alpha)
    spec = head_spec(head, data.classes) if head is not None else None
    job = prepare(
        smoothed,
        data,
        directory,
        rule,
        head=spec,
        seed=seed,
        batch=batch,
        threads=threads,
        workers=workers,
        executor=executor,
        shard=shard,
        quiet=quiet,
    )
    return job.run(quiet=quiet)


def encode_rule(
    head: Any | None,
    *,
    decision: Decide = "auto",
    served: int | None = None,
    n0: int | None = None,
    n: int | None = None,
    alpha: float = 0.001,
) -> RuleSpec:
    """The statistics of a run that encodes, with what is left open at its usual value."""
    return RuleSpec.settle(
        "encode",
        alpha=alpha,
        n0=n0,
        n=n,
        decision=decision_for(head, decision),
        served=served,
    )


def _check_kind(smoothed: Any, wanted: type, verb: str) -> None:
    """Refuse a model that another verb is for, or none."""
    if isinstance(smoothed, wanted):
        return
    given = type(smoothed).__name__
    article = "an" if given[:1] in "AEIOU" else "a"
    instead = f"Wrap the model first: smoothcert.{wanted.__name__}(model, sigma=0.25)"
    if isinstance(smoothed, SmoothedEncoder):
        instead = "Use smoothcert.encode"
    elif isinstance(smoothed, SmoothedClassifier):
        instead = "Use smoothcert.certify"
    raise InvalidInput(
        f"smoothcert.{verb} of {article} {given}", f"it works with a {wanted.__name__}", instead
    )

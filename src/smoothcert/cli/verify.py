"""``smoothcert verify``: does a run file support what it claims?"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from smoothcert.cli import options
from smoothcert.cli.terminal import say
from smoothcert.errors import VerificationFailed


def verify(
    runs: options.RunDirectories,
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha", help="Recompute at another alpha; marked post hoc.", show_default="the run's"
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Recompute everything from the stored votes, without torch or the models, and say what is claimed.

    Checks the file, every hash, that each image has exactly the draws specified, and the alpha accounting.
    Exit status 5 if anything fails.

    [bold]Example[/]: smoothcert verify runs/digits
    """
    from smoothcert import runlog
    from smoothcert.runlog.reading import run_directories

    failed, found = [], []
    for directory in [directory for name in runs for directory in run_directories(name)]:
        checked = runlog.verify(runlog.open_run(directory), alpha=alpha)
        found.append(_summary(str(directory), checked))
        if not as_json:
            _show(str(directory), checked)
        if not checked.passed:
            failed.append(str(directory))
    if as_json:
        print(json.dumps(found))
    if failed:
        raise VerificationFailed(
            ", ".join(failed),
            "at least one check failed, so nothing is claimed",
            "Restore the run from a copy or repeat it",
        )


def _show(name: str, checked: Any) -> None:
    print(f"{name}")
    for check in checked.checks:
        print(f"  {'ok    ' if check.passed else 'FAILED'}  {check.name:<20} {check.detail}")
    print()
    import textwrap

    print(textwrap.fill(checked.claim, width=100, initial_indent="  ", subsequent_indent="  "))
    say()


def _summary(name: str, checked: Any) -> dict[str, Any]:
    checks = [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in checked.checks]
    return {"run": name, "passed": checked.passed, "claim": checked.claim, "checks": checks}

"""Runs and logs named on the command line, as results. Never needs torch."""

from __future__ import annotations

import re
from pathlib import Path

from smoothcert.runlog import Results, open_runs
from smoothcert.runlog.store import DATABASE


def read_runs(
    names: list[str],
    *,
    alpha: float | None = None,
    sigma: float | None = None,
    decision: str | None = None,
) -> list[Results]:
    """Run directories, patterns and TSV logs, in the order given; several runs of one name by sigma.

    The sigma of a TSV log is taken from ``sigma`` or from its name (``.../sigma_0.25``); the file has none.
    """
    found: list[Results] = []
    for name in names:
        path = Path(name)
        if path.is_file() and path.name != DATABASE:
            from smoothcert.runlog.tsv import read_tsv

            found.append(
                read_tsv(path, sigma=sigma if sigma is not None else _named_sigma(path), description=name)
            )
        else:
            found += open_runs(name, alpha=alpha, decision=decision)
    return found


def _named_sigma(path: Path) -> float | None:
    match = re.search(r"sigma[_=-]?(\d+(?:\.\d+)?)", path.name)
    return float(match.group(1)) if match else None

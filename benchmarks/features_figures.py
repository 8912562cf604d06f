"""Tables and pictures of docs/features.md from run directories: cosines, lengths, heads, attacks.

python benchmarks/features_figures.py OUT RUN... [--radius 0.25] [--decisions RUN] [--name cifar]

Each RUN was made by ``smoothcert certify --task encode``; where ``smoothcert attack`` left an ``attack.json`` in
it, the attacked cosines are drawn and printed beside the certified ones on the same images.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert import analysis, report
from smoothcert.runlog import Results, open_runs

RADII = (0.12, 0.25, 0.5, 0.75)


def attacked(run: Results) -> dict[float, list[dict[str, Any]]]:
    """The rows of the run's attack.json by radius, none where there is no such file."""
    path = Path(run.name) / "attack.json"
    rows: dict[float, list[dict[str, Any]]] = defaultdict(list)
    if path.exists():
        for row in _records(json.loads(path.read_text(encoding="utf-8"))):
            rows[row["radius"]].append(row)
    return dict(rows)


def _records(found: Any) -> list[dict[str, Any]]:
    """Rows with a cosine, wherever they lie."""
    if isinstance(found, dict):
        if "cosine" in found and "example" in found:
            return [found]
        return [row for value in found.values() for row in _records(value)]
    return [row for value in found for row in _records(value)] if isinstance(found, list) else []


def attack_lines(runs: list[Results]) -> list[str]:
    """A markdown line a run and radius: means over the attacked images, and what was broken."""
    lines = [
        "| run | r | images | paper's bound | ours | after the attack | least after / ours there | "
        "head right, clean / attacked | broken |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        for radius, rows in sorted(attacked(run).items()):
            mean = {key: np.mean([row[key] for row in rows]) for key in ("paper", "certified", "cosine")}
            gaps = [row["cosine"] - row["certified"] for row in rows]
            least = rows[int(np.argmin(gaps))]
            heads = [(row["label"], *row["answers"]) for row in rows if row["answers"]]
            right = (
                [100 * np.mean([answer[k] == answer[0] for answer in heads]) for k in (1, 2)] if heads else []
            )
            lines.append(
                f"| {run.name} | {radius:g} | {len(rows)} | {mean['paper']:.3f} | {mean['certified']:.3f} | "
                f"{mean['cosine']:.4f} | {least['cosine']:.3f} / {least['certified']:.3f} | "
                f"{' / '.join(f'{share:.1f} %' for share in right) or '-'} | {sum(bool(r['broken']) for r in rows)} |"
            )
    return lines


def main(out: Path, names: list[str], decisions: list[str], name: str) -> None:
    """Print the tables, draw the pictures."""
    runs = [run for directory in names for run in open_runs(directory)]
    table = analysis.cosine_table(runs, RADII)
    print(table.to_markdown())
    print("\n".join(attack_lines(runs)), "\n")
    crosses = {
        run.name: [
            (radius, float(np.mean([row["cosine"] for row in rows]))) for radius, rows in found.items()
        ]
        for run in runs
        if (found := attacked(run))
    }
    out.mkdir(parents=True, exist_ok=True)
    for ending in ("png", "svg"):
        report.cosine_curve(runs, out / f"{name}-cosine.{ending}", attacked=crosses, max_radius=1.0)
        first = [run for run in runs if run.sigma == runs[0].sigma]  # before and after a booster
        report.length_histogram(first, out / f"{name}-length.{ending}")
    if decisions:
        heads = [
            dataclasses.replace(run, name=f"{run.name} {rule}")
            for directory in decisions
            for rule in ("votes", "margin", "dual")
            for run in open_runs(directory, decision=rule)
        ]
        print(analysis.certified_accuracy(heads, (0.0, *RADII)).to_markdown())
        for ending in ("png", "svg"):
            report.curve(
                heads, out / f"{name}-heads.{ending}", title="Certified accuracy of a prototype head"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--decisions", nargs="*", default=[])
    parser.add_argument("--name", default="features")
    given = parser.parse_args()
    main(given.out, given.runs, given.decisions, given.name)

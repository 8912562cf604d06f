"""How the votes that miss the most frequent class are shared out, from a real run: writes ``rival_shares.json``.

Run: python benchmarks/rival_shares.py RUN
where RUN is a finished run with one fixed stage, such as

    smoothcert predict --data 'cifar10:test[::20]' --classifier 'resnet20:...' --denoiser cifar10 \\
        --sigma 0.25 --n 256 --precision bf16-mixed --out RUN

Shares of few missing votes are too large on average (one vote is all of one vote), so rivals come out
stronger than they are: the pair form gains more in truth than with these shares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from smoothcert.runlog.reading import merge
from smoothcert.runlog.store import open_run
from smoothcert.tallies import Votes


def row(votes: Votes) -> list[float] | None:
    """(p_A, share of the strongest rival in the rest, share of the next); nothing where no vote missed."""
    top, *rivals = (count for _, count in votes.ranked())
    rest = votes.total - top
    if not rest:
        return None
    second, third, *_ = [*rivals, 0, 0]
    return [round(top / votes.total, 5), round(second / rest, 4), round(third / rest, 4)]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/rival_shares.py RUN")
    run = open_run(sys.argv[1])
    images = merge(run.checked_tallies()).values()
    rows = sorted(found for image in images if (found := row(next(iter(image.tallies.values())))))
    about = f"{run.specification.data.name}, sigma {run.specification.noise.sigma:g}, n {run.specification.rule.n}"
    text = "[\n" + ",\n".join(json.dumps(values) for values in rows) + "\n]"
    target = Path(__file__).with_name("rival_shares.json")
    target.write_text(
        f'{{"source": {json.dumps(about)},\n"columns": ["p_A", "second", "third"],\n"rows": {text}}}\n'
    )
    print(f"{target}: {len(rows)} of {len(images)} images")


if __name__ == "__main__":
    main()

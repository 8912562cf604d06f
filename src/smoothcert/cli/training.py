"""What the subcommands of ``train`` share: splits of the data, a progress bar, the command for the card."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from smoothcert.cli.terminal import say
from smoothcert.errors import InvalidInput

Directory = Annotated[
    Path, typer.Option("--out", help="Directory to write the model and its card to.", show_default=False)
]


def whole_numbers(text: str) -> tuple[int, ...]:
    """``16,32``, repeated numbers kept."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInput(f"{text!r}", "these are no whole numbers", "Write for instance 32,64") from error


def command_line() -> str:
    """The command line that is running, for cards; what a shell would take apart is quoted."""
    return f"smoothcert {shlex.join(sys.argv[1:])}"


def splits(data: str) -> tuple[str, str | None]:
    """Names of the split to learn and of the one to measure on, where the data set has one."""
    base = re.split(r"[:\[]", data, maxsplit=1)[0]
    rest = data[len(base) :]
    if base not in ("digits", "cifar10", "cifar100", "mnist"):
        return data, None
    return f"{base}{rest if rest.startswith(':') else ':train' + rest}", f"{base}:test"


@contextmanager
def bar(title: str, steps: int, *, quiet: bool) -> Iterator[Callable[[int, int, float], None] | None]:
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=steps or None)
        yield lambda step, total, loss: bar.update(
            task, completed=step, total=total, description=f"{title}, loss {loss:.3f}"
        )


def show(done: Any) -> None:
    say(f"wrote {done.directory}: {done.steps:,} steps in {done.seconds:.0f} s, last loss {done.loss:.4f}")
    for name, value in done.figures.items():
        print(f"{name}: {value}")

"""The command line for tests: in this process, which saves every command the import of torch, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smoothcert import cli


def smoothcert(*words: str, where: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """What a command prints and how it ends, run in this process; ``expect`` is its exit status."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _started(where):
        status = main([*words])
    done = subprocess.CompletedProcess(["smoothcert", *words], status, out.getvalue(), err.getvalue())
    assert done.returncode == expect, done.stderr[-3000:]
    return done


def in_a_process(*words: str, where: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, for what depends on being one."""
    done = subprocess.run(
        [sys.executable, "-m", "smoothcert", *words],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == expect, done.stderr[-3000:]
    return done


def main(words: list[str]) -> int:
    """The exit status of a command, in this process and directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["smoothcert", *words])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@contextlib.contextmanager
def _started(where: Path) -> Iterator[None]:
    """As if started there; modules found there, and the path to them, are forgotten afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(where)):
            del sys.modules[name]

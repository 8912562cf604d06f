"""The README is executed, not quoted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_examples_run_in_order(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 3
    script = "\n".join(blocks) + "\nprint(cert.m_lower, cert.decisions)\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Carlini" in done.stdout or "carlini" in done.stdout
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_both_commands_make_their_own_environment() -> None:
    commands = re.findall(r"<!-- (?:demo|tests) -->\n```sh\n(.*?)\n```", README, flags=re.DOTALL)
    assert len(commands) == 2
    for command in commands:
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install")


def test_the_other_commands_name_options_that_exist() -> None:
    from typer.testing import CliRunner

    from smoothcert.cli.application import app

    words = re.findall(
        r"(?<= )--[a-z][a-z-]*",
        "".join(re.findall(r"^smoothcert certify.*?\n```", README, flags=re.DOTALL | re.MULTILINE)),
    )
    assert words
    offered = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["certify", "--help"]).output
    assert not [word for word in words if word not in offered]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (Path(__file__).parent.parent / link).exists()

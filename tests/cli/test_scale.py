"""Where a run is done, from the command line: workers, Ray, and options that need it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import in_a_process, main, smoothcert
from tests.cli.test_commands import state

from smoothcert import errors
from smoothcert.cli import exit_code

pytest.importorskip("ray", reason='needs Ray: pip install "smoothcert[ray]"')

SMALL = [
    "certify",
    "--data",
    "digits:test[:6]",
    "--sigma",
    "0.5",
    "--denoiser",
    "none",
    "--classifier",
    "digits",
]
SMALL += ["--stop", "table:0,0.5", "--n", "1000", "--quiet"]


def test_ray_gives_the_same_run_to_the_bit(tmp_path: Path) -> None:
    smoothcert(*SMALL, "--out", "runs/local", where=tmp_path)
    in_a_process(*SMALL, "--out", "runs/ray", "--executor", "ray", "--workers", "2", where=tmp_path)
    assert state("runs/local", tmp_path)["tallies"] == state("runs/ray", tmp_path)["tallies"]
    assert state("runs/ray", tmp_path)["complete"]
    smoothcert("verify", "runs/ray", where=tmp_path)
    written = (tmp_path / "runs/ray/run.toml").read_text()
    assert "executor" not in written, "where a run was done is no part of what it is"
    assert "workers" not in written
    # Begun by Ray, continued here: nothing is left to do.
    smoothcert(*SMALL, "--out", "runs/ray", "--workers", "auto", where=tmp_path)


@pytest.mark.parametrize("kind", [errors.WorkersLost, errors.WorkerRefused])
def test_a_cluster_without_workers_has_an_exit_status_of_its_own(kind: type[errors.SmoothcertError]) -> None:
    assert exit_code(kind("all workers", "died", "Start others")) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers 0"),
        (["--workers", "many"], "--workers auto"),
        (["--executor", "slurm"], "executor"),
        (["--address", "auto"], "Add --executor ray"),
        (["--gpus-per-worker", "0.5"], "Add --executor ray"),
        (["--executor", "ray", "--gpus-per-worker", "0"], "each worker needs a GPU"),
        (["--executor", "ray", "--gpus-per-worker", "1"], "--device cuda"),
        (["--executor", "ray", "--address", "ray://head:10001"], "ray job submit"),
    ],
)
def test_options_that_cannot_work_are_one_clear_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--out", "runs/x", *options]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs/x/sigma-0.5/run.db").exists()

"""The job array script of docs/scaling.md, as it is printed, where ``srun`` and ``scontrol`` are stand-ins."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.command import smoothcert
from tests.cli.test_commands import state

from smoothcert.runlog.store import open_run

DOCS = Path(__file__).parent.parent.parent / "docs/scaling.md"
CONFIGURATION = 'data = "digits:test[:20]"\nsigma = 0.5\nn = 3000\nworkers = 1\n'
SRUN = """#!/bin/bash
shift  # --cpus-per-task=...
"$@" & child=$!
if [ -e stop ]; then  # as Slurm does some time before the end
  rm stop
  until grep -qs . runs/imagenet/shard-03-of-16/sigma-0.5/run.toml; do sleep 0.02; done
  sleep 0.2
  kill -TERM $child
fi
wait $child
"""


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """A directory with the script of the documentation, and the programs that it calls."""
    blocks = re.findall(r"```bash\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "shards.sh").write_text(next(text for text in blocks if text.startswith("#!")))
    (tmp_path / "merge.sh").write_text(next(text for text in blocks if "afterok" in text))
    (tmp_path / "imagenet.toml").write_text(CONFIGURATION)
    programs = {
        "srun": SRUN,
        "scontrol": '#!/bin/bash\necho "$@" >> requeued\n',
        "smoothcert": f'#!/bin/bash\nexec {sys.executable} -m smoothcert "$@"\n',
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def run(queue: Path, number: int) -> int:
    given = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "1"}
    path = {"PATH": f"{queue / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "shards.sh"], cwd=queue, env=os.environ | given | path, check=False)
    return done.returncode


def test_a_task_that_is_stopped_goes_back_into_the_queue_and_continues(queue: Path) -> None:
    (queue / "stop").touch()
    assert run(queue, 3) == 143
    assert (queue / "requeued").read_text() == "requeue 77_3\n"
    assert not state("runs/imagenet", queue)["complete"]
    assert open_run(queue / "runs/imagenet/shard-03-of-16/sigma-0.5").shard.number == 3
    assert run(queue, 3) == 0
    assert state("runs/imagenet", queue)["complete"]
    assert (queue / "requeued").read_text().count("\n") == 1
    (command,) = re.findall(r"(merge .* --out \S+)\"", (queue / "merge.sh").read_text())
    words = [word.strip("'") for word in command.split()]
    refused = smoothcert(*words, where=queue, expect=4)
    assert (
        "1 of 16 shards at sigma 0.5: shards 1/16, 2/16, 4/16, 5/16, 6/16 and 10 more are missing"
        in refused.stderr
    )


def test_the_scripts_are_shell(queue: Path) -> None:
    for name in ("shards.sh", "merge.sh"):
        subprocess.run(["bash", "-n", name], cwd=queue, check=True)

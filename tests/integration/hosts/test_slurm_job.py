"""The Slurm job with stand-ins for Slurm's commands: what each task becomes, and when the job queues itself again."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Runs the tasks one after the other, as many as there are nodes, and ends with the highest code, as srun does.
SRUN = """#!/bin/bash
shift
highest=0
for (( task = 0; task < SLURM_NTASKS; task++ )); do
    SLURM_PROCID=$task "$@" || { code=$?; [ "$code" -le "$highest" ] || highest=$code; }
done
exit "$highest"
"""
SCONTROL = '#!/bin/bash\necho "$*" >> "$RUNS_DIR/scontrol.log"\n'
# Notes what it became instead of training.
PYTHON = f"""#!/bin/bash
if [ "$2" = training_cluster.hosts.slurm ]; then exec {sys.executable} "$@"; fi
echo "$TF_CONFIG $*" >> "$RUNS_DIR/tasks.log"
exit "$TRAINER_CODE"
"""


@pytest.fixture
def submit(tmp_path: Path, repository: Path) -> Callable[..., int]:
    """Return a function that runs the script on two nodes and returns its exit code."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", PYTHON)):
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)

    def run(*, trainer_code: int, restarts: int = 0) -> int:
        variables = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(repository),
            "PYTHON": str(programs / "python"),
            "USER": "ann",
            **{"RUN_ID": "r1", "MODEL": "m", "CONFIG": "t.toml", "DATA": "/d", "RUNS_DIR": str(tmp_path)},
            **{"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "gpu[1-2]", "SLURM_NTASKS": "2"},
            "SLURM_RESTART_COUNT": str(restarts),
            "TRAINER_CODE": str(trainer_code),
        }
        script = repository / "deploy" / "slurm" / "train.sbatch"
        return subprocess.run([str(script)], env=variables, check=False).returncode

    return run


def test_each_task_is_a_worker_with_a_run_folder_of_its_own(submit: Callable[..., int], tmp_path: Path) -> None:
    assert submit(trainer_code=0) == 0

    tasks = (tmp_path / "tasks.log").read_text().splitlines()
    config, words = json.JSONDecoder().raw_decode(tasks[1])[0], tasks[1].rpartition("}} ")[2]
    assert config == {
        "cluster": {"worker": ["gpu1:12345", "gpu2:12345"]},
        "task": {"type": "worker", "index": 1},
    }
    assert words == (
        f"-m training_cluster.trainer --run-dir {tmp_path}/.workers/1/r1 --run-id r1 --model m --config t.toml "
        "--data /d --trained-by ann"
    )
    assert f"--run-dir {tmp_path}/r1 " in tasks[0]
    assert not (tmp_path / "scontrol.log").exists()


@pytest.mark.parametrize(
    ("code", "restarts", "is_queued"), [(75, 0, True), (76, 99, True), (75, 100, False), (11, 0, False)]
)
def test_a_job_queues_itself_again_when_it_can_go_on(
    submit: Callable[..., int], tmp_path: Path, *, code: int, restarts: int, is_queued: bool
) -> None:
    assert submit(trainer_code=code, restarts=restarts) == code

    log = tmp_path / "scontrol.log"
    assert (log.read_text() if log.exists() else "") == ("requeue 77\n" if is_queued else "")

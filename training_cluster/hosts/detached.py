"""Start a command so that it outlives whoever asked for it; end it in its own way, or at once.

Its place in the flow: on a training host the playbook starts the trainer through here, under a supervisor
(`supervision`). What is known of it later lies in its launch folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from artifact_sync.errors import TrainingError
from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.supervision import USUAL_RESTARTS, Restarts, signal_process

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
_PASSED_ON_PREFIXES = ("TF_", "CUDA_", "XLA_", "NVIDIA_", "NCCL_", "LIFTGATE_")
_STOP_SECONDS = 300
_START_SECONDS = 30.0
_POLL_SECONDS = 0.05
_LAUNCH_TRIES = 20
_LAUNCH_PAUSE_SECONDS = 0.25


def start_detached(
    folder: LaunchFolder, command: Sequence[str], *, name: str, run_dir: Path, restarts: Restarts = USUAL_RESTARTS
) -> bool:
    """Start `command` under a supervisor that lives on when this process and its session end.

    With systemd as the machine's first process the supervisor is the transient unit `name`: the
    service manager then owns it, and stops it in order when the machine goes down. Elsewhere it is
    a session of its own. Returns False when it was running already.

    Raises:
        TrainingError: the supervisor did not come up.
    """
    if folder.is_running:
        return False
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.end_requested.unlink(missing_ok=True)
    before, launch_id = folder.launch_id, secrets.token_hex(8)
    supervisor = [sys.executable, "-m", "training_cluster.hosts.host_side", "run"]
    supervisor += ["--launch-dir", str(folder.path), "--run-dir", str(run_dir), "--restarts", str(restarts.limit)]
    supervisor += ["--launch-id", launch_id, "--follows", before or "", "--"]
    _spawn([*_launcher(name), *supervisor, *command], folder=folder)
    _wait_until_up(folder, before=before)
    return folder.launch_id == launch_id


def stop_detached(folder: LaunchFolder, *, grace_seconds: float) -> bool:
    """Ask the command to end with SIGTERM, and kill its whole process group after `grace_seconds`.

    Returns whether it was running.
    """
    if not folder.is_running:
        return False
    folder.end_requested.touch()
    if not _signal_until_ended(folder, signal.SIGTERM, seconds=grace_seconds):
        kill_detached(folder)
    return True


def kill_detached(folder: LaunchFolder) -> bool:
    """End the command and all that it has started at once; return whether it was running."""
    if not folder.is_running:
        return False
    folder.end_requested.touch()
    _signal_until_ended(folder, signal.SIGKILL, seconds=_START_SECONDS)
    return True


def _signal_until_ended(folder: LaunchFolder, number: signal.Signals, *, seconds: float) -> bool:
    """Signal the command once, also one that is just being started; return whether it ended in time."""
    deadline, signalled = time.monotonic() + seconds, {0}
    while folder.is_running:
        pid = folder.command_pid or 0
        if pid not in signalled:
            signal_process(-pid if number == signal.SIGKILL else pid, number)
            signalled.add(pid)
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _launcher(name: str) -> list[str]:
    """Return the command that runs what follows it apart from this session, and returns at once."""
    is_root = os.geteuid() == 0
    manager = Path("/run/systemd/system") if is_root else Path(f"/run/user/{os.geteuid()}/bus")
    if not manager.exists() or shutil.which("systemd-run") is None:
        return ["setsid", "--fork"]
    passed_on = [key for key in os.environ if key in _PASSED_ON or key.startswith(_PASSED_ON_PREFIXES)]
    return [
        *["systemd-run", *([] if is_root else ["--user"]), "--quiet", "--collect", f"--unit={name}"],
        *["--property=KillMode=mixed", f"--property=TimeoutStopSec={_STOP_SECONDS}"],
        f"--working-directory={Path.cwd()}",
        *[f"--setenv={key}" for key in sorted(passed_on)],
    ]


def _spawn(command: list[str], *, folder: LaunchFolder) -> None:
    environment = dict(os.environ)
    environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")
    with (folder.path / "launch.log").open("wb") as log:
        # A unit that has just ended keeps its name for a moment after it let go of the lock.
        for _ in range(_LAUNCH_TRIES):
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, check=False
            )
            if done.returncode == 0:
                return
            time.sleep(_LAUNCH_PAUSE_SECONDS)


def _wait_until_up(folder: LaunchFolder, *, before: str | None) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while folder.launch_id == before:
        if time.monotonic() >= deadline:
            said = (folder.path / "launch.log").read_text(errors="replace").strip()
            raise TrainingError(
                f"The training did not come up within {_START_SECONDS:.0f} s in {folder.path}. "
                f"The launcher said: {said or 'nothing'}. Put that right and start it again."
            )
        time.sleep(_POLL_SECONDS)

"""Follow a run to its end and bring it home, as a command: `python -m training_cluster.hosts.follow`.

Its place in the flow: the last steps of playbooks/train.yml on the controlling machine, so that the playbook and
`liftgate train` judge by the same rules how a run over many hosts stands. Ending it ends nothing but the following.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from artifact_sync.errors import LiftgateError, TrainingError
from training_cluster.cluster import TrainingState
from training_cluster.hosts.attached_run import AttachedRun
from training_cluster.hosts.attachment import Attachment, attachment_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Wait for the end of a run, and print its figures, or where it lies when it is to be collected."""
    options = _parse(arguments)
    try:
        attachment = Attachment.load(attachment_path(options.runs_dir, options.run_id))
        if attachment is None:
            raise TrainingError(f"Run {options.run_id} was not started from {options.runs_dir}; start it first.")
        run = AttachedRun(attachment)
        state = _follow(run, poll_seconds=options.poll_seconds, hours=options.hours)
        if state.status != "complete":
            raise TrainingError(f"Run {options.run_id}: {state.status}, {state.detail}.")
        sys.stdout.write(f"{state.step} steps, {state.detail}\n")
        if options.until == "collected":
            sys.stdout.write(f"{run.collect(options.runs_dir).path}\n")
    except LiftgateError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _follow(run: AttachedRun, *, poll_seconds: float, hours: float) -> TrainingState:
    """Return how the run stands when it does not run any more; a host that does not answer now may do so later."""
    deadline = time.monotonic() + hours * 3600
    problem = "still running"
    while time.monotonic() < deadline:
        try:
            state = run.state()
        except TrainingError as error:
            problem = str(error)
        else:
            if state.status != "running":
                return state
            problem = state.detail
        time.sleep(poll_seconds)
    raise TrainingError(f"Given up following after {hours:g} hours ({problem}). The training goes on; play this again.")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training_cluster.hosts.follow")
    parser.add_argument("--runs-dir", type=Path, required=True)
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--until", choices=("ended", "collected"), default="collected")
    parser.add_argument("--poll-seconds", type=float, default=10.0)
    parser.add_argument("--hours", type=float, default=168.0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

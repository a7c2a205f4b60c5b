"""What the controlling machine asks a training host to do, as a command that answers in one line of JSON.

Its place in the flow: the playbook and `AnsibleCluster` call `python -m training_cluster.hosts.host_side VERB`
on the host, over SSH or locally; it starts the trainer detached, says how it stands, stops it, and lists the
run folder's digests for collecting.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from artifact_sync.errors import LiftgateError
from artifact_sync.records import FileEntry, Manifest
from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import INTERRUPTED_EXIT_CODE, TrainingState
from training_cluster.hosts.detached import LaunchFolder, start_detached, stop_detached, supervise

_LOG_LINES = 20


def observe(launch: LaunchFolder, run: RunFolder) -> TrainingState:
    """Return how the run stands on this machine, from its files and its lock alone."""
    progress = _last_progress(run.path / "progress.jsonl")
    step, total = int(progress.get("step", 0)), int(progress.get("total_steps", 0))
    if launch.is_running:
        return TrainingState("running", step, _figures(progress) or "starting", total)
    if run.is_complete:
        return TrainingState("complete", step, _figures(progress) or "complete", total)
    if not launch.exists:
        return TrainingState("absent", 0, f"run {run.run_id} was never started here")
    return _ended(launch, step=step, total=total)


def run_digests(run: RunFolder) -> Manifest:
    """Return the digests of all that is brought home of a run: everything but checkpoints and unfinished files."""
    entries = []
    for path in run.path.rglob("*"):
        parts = path.relative_to(run.path).parts
        if not path.is_file() or parts[0] == "checkpoints" or any(part.startswith(".") for part in parts):
            continue
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        entries.append(FileEntry(path="/".join(parts), size_bytes=path.stat().st_size, sha256=digest))
    return Manifest(files=tuple(sorted(entries, key=lambda entry: entry.path)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute one verb and print its answer as one line of JSON on stdout."""
    options, command = _parse(list(sys.argv[1:] if arguments is None else arguments))
    launch = LaunchFolder(options.launch_dir)
    if options.verb == "run":
        supervise(launch, command, launch_id=options.launch_id, follows=options.follows)
        return 0
    run = RunFolder(options.run_dir)
    try:
        answer = _answer(options, launch, run, command)
    except LiftgateError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(answer + "\n")
    return 0


def _answer(options: argparse.Namespace, launch: LaunchFolder, run: RunFolder, command: list[str]) -> str:
    if options.verb == "digests":
        return run_digests(run).to_json().decode()
    changed = False
    if options.verb == "start" and not run.is_complete:
        changed = start_detached(launch, command, name=f"liftgate-train-{run.run_id}")
    if options.verb == "stop":
        changed = stop_detached(launch, grace_seconds=options.grace_seconds)
    state = asdict(observe(launch, run))
    return json.dumps({**state, "changed": changed, "log": launch.log_tail(_LOG_LINES)})


def _ended(launch: LaunchFolder, *, step: int, total: int) -> TrainingState:
    code = launch.exit_code
    if code == INTERRUPTED_EXIT_CODE:
        return TrainingState("interrupted", step, f"interrupted at a checkpoint near step {step}", total)
    if code is None or code < 0:
        how = "killed, or its machine went down" if code is None else f"killed by signal {-code}"
        return TrainingState("interrupted", step, f"{how} after step {step}; it goes on from its checkpoint", total)
    last = " | ".join(line for line in launch.log_tail(3) if line.strip())
    return TrainingState("failed", step, f"exit code {code} after step {step}: {last or 'no output'}", total)


def _figures(progress: Mapping[str, object]) -> str:
    """Return the trainer's newest figures as one line for people."""
    shown = {key: value for key, value in progress.items() if key not in ("step", "total_steps", "at", "event")}
    return ", ".join(
        f"{key.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}"
        for key, value in shown.items()
    )


def _last_progress(path: Path) -> dict[str, int | float | str]:
    """Return the last whole line of progress.jsonl; a line that is still being written is passed over."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 16384))
            lines = stream.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        try:
            progress = json.loads(line)
        except ValueError:
            continue
        if isinstance(progress, dict):
            return progress
    return {}


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    # Everything after the first "--" is the command, untouched.
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="python -m training_cluster.hosts.host_side")
    parser.add_argument("verb", choices=("start", "run", "state", "stop", "digests"))
    parser.add_argument("--launch-dir", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, default=Path())
    parser.add_argument("--launch-id", default="")
    parser.add_argument("--follows")
    parser.add_argument("--grace-seconds", type=float, default=60.0)
    return parser.parse_args(arguments[:cut]), arguments[cut + 1 :]


if __name__ == "__main__":
    sys.exit(main())

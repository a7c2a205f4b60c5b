"""What the controlling machine asks a training host to do, as a command that answers in one line of JSON.

Its place in the flow: the playbook and `attached_run` call `python -m training_cluster.hosts.host_side VERB` on
the host, over SSH or locally; it starts the trainer detached, says how it stands, stops or kills it, leaves
wishes for it, and lists the run folder's digests for collecting.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from artifact_sync.durable import write_durably
from artifact_sync.errors import LiftgateError, RefusedError
from artifact_sync.records import FileEntry, Manifest
from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import Wish
from training_cluster.hosts.detached import kill_detached, start_detached, stop_detached
from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.observation import observe
from training_cluster.hosts.supervision import Restarts, supervise

Verb = Literal["start", "state", "stop", "kill", "wish", "digests"]
_LOG_LINES = 20
_STAYS_ON_THE_HOST = ("checkpoints", "control")


@dataclass(frozen=True)
class Question:
    """What a host is asked to do for one worker of a run.

    Attributes:
        index: which worker is meant.
        grace_seconds: of "stop": how long the trainer may take before it is killed.
        wish: of "wish": which one.
        steps: of "wish": for how many steps.
        tf_config: of "start": who trains together, as TensorFlow's variable; empty for one alone.
        restarts: of "start": so often in a row a trainer that died is started again.
    """

    verb: Verb
    index: int = 0
    grace_seconds: float = 60.0
    wish: str = ""
    steps: int = 0
    tf_config: str = ""
    restarts: int = Restarts.limit

    def arguments(self) -> list[str]:
        """Return it as `main` reads it."""
        options = {name.replace("_", "-"): value for name, value in asdict(self).items() if name != "verb"}
        return [self.verb, *[word for name, value in options.items() for word in (f"--{name}", str(value))]]

    def answer(self, launch: LaunchFolder, run: RunFolder, *, command: Sequence[str] = ()) -> dict[str, Any]:
        """Do it here and return how the run stands then, or its digests.

        Raises:
            TrainingError: the trainer did not come up.
            RefusedError: a wish was left for a run that does not run.
        """
        changed = False
        match self.verb:
            case "digests":
                digests: dict[str, Any] = json.loads(run_digests(run).to_json())
                return digests
            case "start":
                changed = _start_trainer(self, launch, run, command)
            case "stop":
                changed = stop_detached(launch, grace_seconds=self.grace_seconds)
            case "kill":
                changed = kill_detached(launch)
            case "wish":
                _leave_wish(self, launch, run)
                changed = True
        state = asdict(observe(launch, run, index=self.index))
        return {**state, "changed": changed, "restarts": launch.restarts, "log": launch.log_tail(_LOG_LINES)}


def run_digests(run: RunFolder) -> Manifest:
    """Return the digests of all that is brought home: everything but checkpoints, wishes and unfinished files."""
    entries = []
    for path in run.path.rglob("*"):
        parts = path.relative_to(run.path).parts
        if not path.is_file() or parts[0] in _STAYS_ON_THE_HOST or any(part.startswith(".") for part in parts):
            continue
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        entries.append(FileEntry(path="/".join(parts), size_bytes=path.stat().st_size, sha256=digest))
    return Manifest(files=tuple(sorted(entries, key=lambda entry: entry.path)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute one verb and print its answer as one line of JSON on stdout."""
    options, command = _parse(list(sys.argv[1:] if arguments is None else arguments))
    launch, run = LaunchFolder(options.pop("launch_dir")), RunFolder(options.pop("run_dir"))
    launch_id, follows = options.pop("launch_id"), options.pop("follows")
    if options["verb"] == "run":
        restarts = Restarts(limit=options["restarts"])
        supervise(launch, command, run_dir=run.path, launch_id=launch_id, follows=follows, restarts=restarts)
        return 0
    try:
        answer = Question(**options).answer(launch, run, command=command)
    except LiftgateError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _start_trainer(question: Question, launch: LaunchFolder, run: RunFolder, command: Sequence[str]) -> bool:
    """Start the trainer among the hosts that are named, and return whether anything was done.

    One that runs already among the same hosts is left alone; one that waits for hosts that are not in the
    training any more is brought to its checkpoint first.
    """
    if run.is_complete:
        return False
    if launch.is_running and launch.tf_config != question.tf_config:
        stop_detached(launch, grace_seconds=question.grace_seconds)
    if launch.is_running:
        return False
    write_durably(launch.path / "tf_config", question.tf_config.encode())
    name = f"liftgate-train-{run.run_id}" + (f"-{question.index}" if question.index else "")
    return start_detached(launch, command, name=name, run_dir=run.path, restarts=Restarts(limit=question.restarts))


def _leave_wish(question: Question, launch: LaunchFolder, run: RunFolder) -> None:
    if not launch.is_running:
        raise RefusedError(
            f"The wish for {question.wish} is refused: run {run.run_id} is not running here. Start it, then wish again."
        )
    write_durably(run.control / question.wish, f"{question.steps}\n".encode())


def _parse(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    # Everything after the first "--" is the command, untouched.
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="python -m training_cluster.hosts.host_side")
    parser.add_argument("verb", choices=("run", *get_args(Verb)))
    parser.add_argument("--launch-dir", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, default=Path())
    parser.add_argument("--launch-id", default="")
    parser.add_argument("--follows")
    parser.add_argument("--index", type=int, default=Question.index)
    parser.add_argument("--grace-seconds", type=float, default=Question.grace_seconds)
    parser.add_argument("--wish", choices=("", *get_args(Wish)), default=Question.wish)
    parser.add_argument("--steps", type=int, default=Question.steps)
    parser.add_argument("--tf-config", default=Question.tf_config)
    parser.add_argument("--restarts", type=int, default=Question.restarts)
    return vars(parser.parse_args(arguments[:cut])), arguments[cut + 1 :]


if __name__ == "__main__":
    sys.exit(main())

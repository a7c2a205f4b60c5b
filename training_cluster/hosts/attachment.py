"""Where a run goes on, and how to talk to it there: the one file a controlling machine needs to re-attach.

Its place in the flow: the playbook writes `runs/.launch/<run_id>/attachment.json` on the controlling
machine when it has started a run; `AnsibleCluster` and the playbook's last step read it to look at the
run, to stop it and to bring it home. Losing it loses nothing: the playbook finds the run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import ValidationError

from artifact_sync.canonical import FrozenModel, canonical_json
from artifact_sync.errors import LiftgateError, TrainingError
from artifact_sync.manifest import verify_manifest
from artifact_sync.records import Manifest
from artifact_sync.run_folder import RunFolder
from training_cluster.hosts.ssh import CommandResult, SshHost, SshTransport

_VERB_SECONDS = 600.0


class Attachment(FrozenModel):
    """A run on a host; paths are the host's own, except `known_hosts` and `identity_file`."""

    run_id: str
    host: str
    connection: Literal["local", "ssh"]
    address: str = ""
    port: int = 22
    user: str = ""
    identity_file: Path | None = None
    known_hosts: Path | None = None
    python: str
    app_dir: PurePosixPath
    launch_dir: PurePosixPath
    run_dir: PurePosixPath

    @classmethod
    def load(cls, path: Path) -> Attachment | None:
        """Return what the file says, or None when there is none.

        Raises:
            TrainingError: the file is malformed.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise TrainingError(
                f"{path} does not say where the run goes on ({error.error_count()} fields wrong). "
                "Remove it and start the run again: it is found where it is."
            ) from error

    def ssh(self) -> SshTransport:
        """Return a transport to the host; it connects inside its `with` block."""
        if self.known_hosts is None:
            raise TrainingError(
                f"Run {self.run_id} is on {self.host} by SSH, and no known_hosts file is given. "
                "Set training_ssh_known_hosts in the inventory."
            )
        return SshTransport(
            SshHost(
                name=self.host,
                address=self.address,
                port=self.port,
                user=self.user,
                known_hosts=self.known_hosts,
                identity_file=self.identity_file,
            )
        )


def attachment_path(runs_dir: Path, run_id: str) -> Path:
    """Return where the controlling machine keeps a run's attachment."""
    return runs_dir / ".launch" / run_id / "attachment.json"


def ask(attachment: Attachment, verb: str, *, grace_seconds: float = 60.0) -> dict[str, Any]:
    """Have the host execute one verb of `host_side` and return its answer.

    Raises:
        TrainingError: the host cannot be reached, or the verb failed there.
        TrustError: the host's key is not the pinned one.
    """
    command = _command(attachment, verb, grace_seconds=grace_seconds)
    if attachment.connection == "local":
        result = _run_here(command)
    else:
        with attachment.ssh() as transport:
            result = transport.run(command, timeout_seconds=_VERB_SECONDS)
    if result.exit_code != 0:
        raise TrainingError(
            f"Host {attachment.host} could not {verb} run {attachment.run_id}: exit code {result.exit_code}, "
            f"{result.stderr.strip() or 'nothing said'}."
        )
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def bring_home(
    attachment: Attachment, runs_dir: Path, *, progress: Callable[[int, int], None] | None = None
) -> RunFolder:
    """Bring the complete run folder to `runs_dir` and verify its export; repeating it moves only what is missing.

    Checkpoints stay on the host: they are there to go on from, not to be promoted.

    Raises:
        TrainingError: the run is not complete, or the host cannot be reached.
        IntegrityError: a file is not what its digest says.
    """
    run = RunFolder(runs_dir / attachment.run_id)
    if attachment.connection == "ssh":
        digests = Manifest.from_json(canonical_json(ask(attachment, "digests")))
        with attachment.ssh() as transport:
            transport.fetch_directory(
                attachment.run_dir, run.path, manifest=digests, last=run.manifest_json.name, progress=progress
            )
    if not run.is_complete:
        raise TrainingError(f"Run {run.run_id} cannot be collected from {attachment.host}: it is not complete there.")
    verify_manifest(run.export, run.read_manifest())
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the run of an attachment file home: the playbook's last step. Print the run folder's path."""
    parser = argparse.ArgumentParser(prog="python -m training_cluster.hosts.attachment")
    parser.add_argument("--runs-dir", type=Path, required=True)
    parser.add_argument("--run-id", required=True)
    options = parser.parse_args(arguments)
    try:
        attachment = Attachment.load(attachment_path(options.runs_dir, options.run_id))
        if attachment is None:
            raise TrainingError(f"Run {options.run_id} was not started from {options.runs_dir}; start it first.")
        run = bring_home(attachment, options.runs_dir)
    except LiftgateError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{run.path}\n")
    return 0


def _command(attachment: Attachment, verb: str, *, grace_seconds: float) -> list[str]:
    return [
        *["env", f"PYTHONPATH={attachment.app_dir}", attachment.python, "-m", "training_cluster.hosts.host_side", verb],
        *["--launch-dir", str(attachment.launch_dir), "--run-dir", str(attachment.run_dir)],
        *["--grace-seconds", str(grace_seconds)],
    ]


def _run_here(command: Sequence[str]) -> CommandResult:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_VERB_SECONDS, check=False)
    return CommandResult(done.returncode, done.stdout, done.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""Train on the hosts of an Ansible inventory: the playbook starts, the attachment looks, stops and collects.

Its place in the flow: `liftgate train` uses it when an inventory is set. The playbook does all that
changes a host, so that what an operator runs by hand and what this runs is the same; looking at a
run goes straight to its host, because a playbook is slow to ask every few seconds.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from artifact_sync.errors import PreflightError, SettingsError, TrainingError, TrustError
from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import TrainingRequest, TrainingState, Wish, never_started
from training_cluster.hosts.attached_run import AttachedRun
from training_cluster.hosts.attachment import Attachment, attachment_path
from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.observation import observe

_ANSIBLE_DIR = Path(__file__).parents[2] / "ansible"
_PLAYBOOK_SECONDS = 3600
_FAILURE_EVENTS = ("runner_on_failed", "runner_on_unreachable", "runner_item_on_failed")


class AnsibleCluster:
    """The training hosts of an inventory.

    Args:
        inventory: an inventory file or folder with the group `training_hosts`.
        ansible_dir: the folder with playbooks and roles; the one beside this package when not given.
        variables: role variables that win over the inventory's, none of them secret.
        progress: called with the name of each step of the playbook.
    """

    def __init__(
        self,
        inventory: Path,
        *,
        ansible_dir: Path = _ANSIBLE_DIR,
        variables: Mapping[str, object] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._inventory = inventory
        self._ansible_dir = ansible_dir
        self._variables = dict(variables or {})
        self._progress = progress

    def start(self, request: TrainingRequest) -> None:
        """Begin the run on a host, go on with it, or leave it alone when it is running or complete.

        Raises:
            PreflightError: hosts are not fit to train, or cannot be reached; all failures of all hosts are named.
            TrainingError: the playbook failed otherwise.
            SettingsError: there is no such inventory, playbook or configuration.
        """
        if request.run_folder.is_complete or self._goes_on(request):
            return
        self._require_paths(request)
        report = attachment_path(request.runs_dir.absolute(), request.run_id).with_name("preflight.json")
        report.unlink(missing_ok=True)
        failure = self._play(self._request_variables(request))
        _raise_preflight(report)
        if failure is not None:
            raise TrainingError(f"Run {request.run_id} could not be started. {failure}")
        if self._attachment(request) is None:
            raise PreflightError(
                f"Training refused: the inventory {self._inventory} names no host in the group training_hosts. "
                "Add at least one; ansible/inventories/onprem shows how."
            )

    def state(self, request: TrainingRequest) -> TrainingState:
        """Return how the run stands over all its hosts.

        Raises:
            TrainingError: so many hosts cannot be reached that nobody knows.
            TrustError: a host's key is not the pinned one.
        """
        if request.run_folder.is_complete:
            launch = attachment_path(request.runs_dir.absolute(), request.run_id).parent
            return observe(LaunchFolder(launch), request.run_folder)
        run = self._run(request)
        if run is None:
            return TrainingState("absent", 0, f"run {request.run_id} was never started from {request.runs_dir}")
        return run.state()

    def collect(self, request: TrainingRequest) -> RunFolder:
        """Bring the complete run to `runs_dir`, moving only what is missing, and verify it.

        Raises:
            TrainingError: the run is not complete, or its host cannot be reached.
            IntegrityError: a file is not what its digest says.
        """
        run = self._run(request)
        if run is None:
            raise TrainingError(
                f"Run {request.run_id} cannot be collected: it was never started from {request.runs_dir}. "
                f"Run `liftgate train --run-id {request.run_id}`."
            )
        return run.collect(request.runs_dir.absolute())

    def stop(self, request: TrainingRequest, *, grace_seconds: float = 60.0) -> None:
        """Ask the run to checkpoint and end on all hosts, and kill it where it has not after `grace_seconds`."""
        run = self._run(request)
        if run is not None:
            run.stop(grace_seconds=grace_seconds)

    def kill(self, request: TrainingRequest) -> None:
        """End the run on all hosts at once."""
        run = self._run(request)
        if run is not None:
            run.kill()

    def wish(self, request: TrainingRequest, wish: Wish, *, steps: int = 0) -> None:
        """Have the running training fulfil a wish at its next look.

        Raises:
            RefusedError: the run does not run.
        """
        run = self._run(request)
        if run is None:
            raise never_started(request, wish)
        run.wish(wish, steps=steps)

    def _run(self, request: TrainingRequest) -> AttachedRun | None:
        attachment = self._attachment(request)
        return None if attachment is None else AttachedRun(attachment)

    def _attachment(self, request: TrainingRequest) -> Attachment | None:
        return Attachment.load(attachment_path(request.runs_dir.absolute(), request.run_id))

    def _goes_on(self, request: TrainingRequest) -> bool:
        """Return whether no host needs a start; that one outside the run is down now must not keep us from it."""
        run = self._run(request)
        try:
            states = () if run is None else run.host_states()
        except TrustError:
            # The playbook looks at every host and tells all that is wrong.
            return False
        if not states or states[0].state is None:
            return False
        return states[0].state.status == "complete" or all(host.is_running for host in states)

    def _require_paths(self, request: TrainingRequest) -> None:
        playbook = self._ansible_dir / "playbooks" / "train.yml"
        for what, path in (
            ("inventory", self._inventory),
            ("playbook", playbook),
            ("configuration", request.config_path),
            *([] if request.streams else [("data manifest", Path(request.data) / "data_manifest.json")]),
        ):
            if not path.exists():
                raise SettingsError(f"Training refused: the {what} {path} does not exist.")

    def _request_variables(self, request: TrainingRequest) -> dict[str, object]:
        return {
            "training_run_id": request.run_id,
            "training_run_model": request.model,
            "training_run_trained_by": request.trained_by,
            "training_run_config_path": str(request.config_path.absolute()),
            "training_run_data": request.data if request.streams else str(Path(request.data).absolute()),
            "training_run_runs_dir": str(request.runs_dir.absolute()),
            "training_run_spread": request.spread,
            "training_run_until": "started",
            **self._variables,
        }

    def _play(self, variables: dict[str, object]) -> str | None:
        """Run train.yml and return None, or what failed in words."""
        import ansible_runner  # noqa: PLC0415 - takes a quarter of a second that only a training should pay

        failures: list[str] = []
        with tempfile.TemporaryDirectory(prefix="liftgate-ansible-") as scratch:
            # The variables go through a file in `scratch`, so no value shows in the list of processes.
            outcome = ansible_runner.run(
                private_data_dir=scratch,
                playbook=str((self._ansible_dir / "playbooks" / "train.yml").absolute()),
                inventory=str(self._inventory.absolute()),
                extravars=variables,
                envvars=self._environment(),
                event_handler=lambda event: self._note(event, failures),
                timeout=_PLAYBOOK_SECONDS,
                # Without one the runner takes SIGINT and SIGTERM for itself, for good: Ctrl-C would do nothing more.
                cancel_callback=lambda: False,
                quiet=True,
            )
            if outcome.status == "successful":
                return None
            return " ".join(failures) or f"The playbook ended {outcome.status} with exit code {outcome.rc}."

    def _environment(self) -> dict[str, str]:
        # ansible-playbook lies beside the interpreter, whether or not the environment is activated.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        return {"PATH": path, "ANSIBLE_CONFIG": str((self._ansible_dir / "ansible.cfg").absolute())}

    def _note(self, event: Mapping[str, Any], failures: list[str]) -> bool:
        data = event.get("event_data", {})
        if event["event"] == "playbook_on_task_start" and self._progress is not None:
            self._progress(str(data.get("name", "")))
        if event["event"] in _FAILURE_EVENTS and not data.get("ignore_errors"):
            failures.append(_failure_text(data))
        # Nothing of the event is kept on disk.
        return False


def _failure_text(data: Mapping[str, Any]) -> str:
    result = data.get("res", {})
    said = [result.get(key) for key in ("msg", "stderr", "module_stderr")]
    words = " ".join(str(text).strip() for text in said if text)
    return f"On {data.get('host', '?')}, “{data.get('task', '?')}”: {words or 'no message'}"


def _raise_preflight(report: Path) -> None:
    try:
        failures: dict[str, list[str]] = json.loads(report.read_bytes())
    except FileNotFoundError:
        return
    lines = [f"  {host}: {failure}" for host, found in failures.items() for failure in found]
    if not lines:
        return
    unfit = sum(1 for found in failures.values() if found)
    raise PreflightError(
        "\n".join(
            [
                f"Training refused: {unfit} of {len(failures)} hosts not fit to train:",
                *lines,
                "Put these right, or take the host out of the inventory, and start again.",
            ]
        )
    )

"""A run on all its hosts, as one: look at it, stop it, kill it, wish for something, bring it home.

Its place in the flow: both clusters and the playbook's last steps go through here once a run has an attachment.
Hosts are asked at the same time, and one that does not answer does not hold up the others. Hosts that are this
very machine are looked at directly, the others over SSH.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from artifact_sync.canonical import canonical_json
from artifact_sync.errors import LiftgateError, RefusedError, TrainingError, TrustError
from artifact_sync.manifest import verify_manifest
from artifact_sync.records import Manifest
from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import TrainingState, Wish
from training_cluster.hosts.attachment import AttachedHost, Attachment
from training_cluster.hosts.host_side import Question, Verb
from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.observation import HostState, joint_state

_VERB_SECONDS = 600.0


class AttachedRun:
    """The run that an attachment leads to; it keeps no connection, so it may be kept for days."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment

    def state(self) -> TrainingState:
        """Return how the run stands over all its hosts.

        Raises:
            TrainingError: so many hosts cannot be reached that nobody knows.
            TrustError: a host's key is not the pinned one.
        """
        return joint_state(self.host_states())

    def host_states(self) -> tuple[HostState, ...]:
        """Return what each host says, the chief first.

        Raises:
            TrustError: a host's key is not the pinned one.
        """
        return tuple(map(_host_state, self._attachment.hosts, self._ask_all(lambda host: _question(host, "state"))))

    def stop(self, *, grace_seconds: float) -> None:
        """Ask all trainers to checkpoint and end, and kill those that have not after `grace_seconds`.

        Raises:
            TrainingError: hosts cannot be reached; it is stopped on the others.
        """
        # When one worker ends alone, the others take it for lost: all are asked at the same moment.
        self._demand(lambda host: Question("stop", index=host.index, grace_seconds=grace_seconds))

    def kill(self) -> None:
        """End all trainers at once.

        Raises:
            TrainingError: hosts cannot be reached; it is killed on the others.
        """
        self._demand(lambda host: _question(host, "kill"))

    def wish(self, wish: Wish, *, steps: int) -> None:
        """Leave a wish with the chief's trainer.

        Raises:
            RefusedError: the run does not run there.
            TrainingError: the chief cannot be reached.
        """
        ask(self._attachment.chief, Question("wish", wish=wish, steps=steps))

    def collect(self, runs_dir: Path, *, progress: Callable[[int, int], None] | None = None) -> RunFolder:
        """Bring the complete run folder to `runs_dir` and verify its export; repeating it moves only what is missing.

        Checkpoints stay on the hosts: they are there to go on from, not to be promoted. Of the others comes
        home how their part went, when they can be reached.

        Raises:
            TrainingError: the run is not complete, or the chief cannot be reached.
            IntegrityError: a file is not what its digest says.
        """
        chief, *others = self._attachment.hosts
        run = RunFolder(runs_dir / self._attachment.run_id)
        state = _training_state(ask(chief, _question(chief, "state")))
        if state.status != "complete":
            state = state if len(self._attachment.hosts) == 1 else self.state()
            raise TrainingError(f"Run {run.run_id} cannot be collected: it is {state.status} ({state.detail}).")
        for host in others:
            _bring_progress(host, run)
        if chief.connection == "ssh":
            digests = Manifest.from_json(canonical_json(ask(chief, _question(chief, "digests"))))
            with chief.ssh() as transport:
                transport.fetch_directory(
                    chief.run_dir, run.path, manifest=digests, last=run.manifest_json.name, progress=progress
                )
        verify_manifest(run.export, run.read_manifest())
        return run

    def _demand(self, question: Callable[[AttachedHost], Question]) -> None:
        problems = [str(answer) for answer in self._ask_all(question) if isinstance(answer, LiftgateError)]
        if problems:
            raise TrainingError(" ".join(problems))

    def _ask_all(self, question: Callable[[AttachedHost], Question]) -> list[dict[str, Any] | LiftgateError]:
        def answer(host: AttachedHost) -> dict[str, Any] | LiftgateError:
            try:
                return ask(host, question(host))
            except LiftgateError as error:
                return error

        hosts = self._attachment.hosts
        if len(hosts) == 1:
            return [answer(hosts[0])]
        with ThreadPoolExecutor(len(hosts)) as threads:
            return list(threads.map(answer, hosts))


def ask(host: AttachedHost, question: Question) -> dict[str, Any]:
    """Have a host do what is asked and return its answer.

    Raises:
        TrainingError: the host cannot be reached, or it failed there.
        RefusedError: the host refuses it as things stand.
        TrustError: the host's key is not the pinned one.
    """
    if host.connection == "local":
        return question.answer(LaunchFolder(Path(host.launch_dir)), RunFolder(Path(host.run_dir)))
    command = ["env", f"PYTHONPATH={host.app_dir}", host.python, "-m", "training_cluster.hosts.host_side"]
    command += [*question.arguments(), "--launch-dir", str(host.launch_dir), "--run-dir", str(host.run_dir)]
    with host.ssh() as transport:
        result = transport.run(command, timeout_seconds=_VERB_SECONDS)
    said = result.stderr.strip() or "nothing said"
    if result.exit_code == RefusedError.exit_code:
        raise RefusedError(f"Host {host.name}: {said}")
    if result.exit_code != 0:
        raise TrainingError(
            f"Host {host.name} could not {question.verb} run {host.run_dir.name}: exit code {result.exit_code}, {said}."
        )
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def _question(host: AttachedHost, verb: Verb) -> Question:
    return Question(verb, index=host.index)


def _host_state(host: AttachedHost, answer: Mapping[str, Any] | LiftgateError) -> HostState:
    if isinstance(answer, TrustError):
        raise answer
    if isinstance(answer, LiftgateError):
        return HostState(host.name, None, str(answer))
    return HostState(host.name, _training_state(answer))


def _training_state(answer: Mapping[str, Any]) -> TrainingState:
    return TrainingState(answer["status"], answer["step"], answer["detail"], answer["total_steps"])


def _bring_progress(host: AttachedHost, run: RunFolder) -> None:
    """Bring home how a worker's part went; the run is whole without it, so a host that is gone is passed over."""
    name = f"progress-{host.index}.jsonl"
    if host.connection == "local":
        if (source := Path(host.run_dir) / name).is_file():
            shutil.copyfile(source, run.path / name)
        return
    try:
        digests = Manifest.from_json(canonical_json(ask(host, _question(host, "digests"))))
        wanted = Manifest(files=tuple(entry for entry in digests.files if entry.path == name))
        with host.ssh() as transport:
            transport.fetch_directory(host.run_dir, run.path, manifest=wanted)
    except TrainingError:
        return

"""Carries out one step of a roll-out: the only place where the agent changes anything.

Its place in the flow: the agent hands it what rollout.plan decided. Every step may be killed at any
line and repeated: files are written durably and whole, the server's configuration is replaced as a
whole, and the state says beforehand what the server is about to be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from artifact_sync.clock import Clock
from artifact_sync.durable import write_durably
from artifact_sync.errors import ModelServerError, ModelServerUnavailableError, NotFoundError
from artifact_sync.pull import pull_version
from artifact_sync.records import Acknowledgement, VersionRecord
from artifact_sync.registry import Registry
from serving.agent_state import Said, after_acceptance
from serving.golden import read_golden_examples, replay
from serving.model_server import model_config_text
from serving.rollout_steps import (
    Acknowledge,
    LoadVersions,
    MoveLabels,
    ProbeVersion,
    PullVersion,
    RecordServing,
    RemoveVersions,
    Step,
    UnloadVersions,
    WriteConfig,
)
from serving.server_driver import ServerDriver, VersionRejectedError
from serving.settings import AgentSettings
from serving.state_file import StateFile
from serving.version_directories import VersionDirectories


class VersionSource(Protocol):
    """Whatever knows the signed record of a version, such as a TrustedView."""

    def version_sha256(self, version: int) -> str:
        """Return the signed digest of a version record, or raise NotFoundError."""
        ...

    def version(self, version: int) -> VersionRecord:
        """Return the record, or raise TrustError or NotFoundError."""
        ...


@dataclass
class StepRunner:
    """Everything that steps act on.

    Args:
        registry: the model's part of the bucket.
        driver: the model server of this host.
        settings: how this host follows the releases.
        clock: time.
        directories: the versions on the disk.
        state_file: what the agent remembers.
        versions: where signed version records come from; None while the bucket is not to be had.
        began_seconds: the clock's monotonic seconds when the tick began.
        beyond_repair: damaged versions that the bucket could not mend either.
    """

    registry: Registry
    driver: ServerDriver
    settings: AgentSettings
    clock: Clock
    directories: VersionDirectories
    state_file: StateFile
    versions: VersionSource | None = None
    began_seconds: float = 0.0
    beyond_repair: set[int] = field(default_factory=set)

    def run(self, step: Step) -> None:
        """Carry out one step.

        Raises:
            VersionRejectedError: the version itself does not load or gives other answers.
            ModelServerError: the server refuses or cannot be reached.
            IntegrityError, TrustError, CapacityError, StoreError: from the pull.
            StopRequestedError: the process is to end.
        """
        match step:
            case WriteConfig():
                write_durably(self.settings.config_path, self.start_config())
            case PullVersion(version):
                self._pull(version)
            case LoadVersions(versions, awaited, labels):
                self._offer(versions)
                self.driver.load(versions, awaited=awaited, labels=labels)
            case ProbeVersion(version):
                self._probe(version)
            case MoveLabels(versions, labels):
                self._offer(versions)
                self.driver.move_labels(versions, labels=labels)
            case RecordServing():
                self._record(step)
            case UnloadVersions(versions, labels):
                self._offer(versions)
                self.driver.unload(versions, labels=labels)
            case RemoveVersions():
                self._remove(step)
            case Acknowledge():
                self._acknowledge(step)

    def is_verified(self, version: int) -> bool:
        """Return whether a version's directory is what its signed record says."""
        record = self.directories.record(version)
        if self.versions is not None:
            try:
                signed_sha256 = self.versions.version_sha256(version)
            except NotFoundError:
                return False
            if record is None or record.sha256 != signed_sha256:
                return False
        return self.directories.is_verified(version)

    def start_config(self) -> bytes:
        """Return what the server's start-up file should say: what was accepted, verified versions only."""
        accepted = self.state_file.state.accepted
        return self._start_config(accepted.labels if accepted is not None else {})

    def _start_config(self, wanted: Mapping[str, int]) -> bytes:
        labels = {label: version for label, version in wanted.items() if self.is_verified(version)}
        last_good = self.state_file.state.last_good
        if "stable" not in labels and last_good is not None and self.is_verified(last_good):
            labels = {"stable": last_good}
        versions = tuple(sorted(set(labels.values())))
        return model_config_text(self.driver.configs(versions, labels=labels)).encode()

    def _offer(self, versions: tuple[int, ...]) -> None:
        # Written before it is sent: after a kill the server may have been told this, or not yet.
        self.state_file.write_if_room(self.state_file.state.model_copy(update={"offered": versions}))

    def _pull(self, version: int) -> None:
        record = self.versions.version(version) if self.versions is not None else self.directories.record(version)
        if record is None:
            raise NotFoundError(f"Version {version} has no signed record on this host; the bucket must be reached.")
        self.directories.remember(record)
        if self.is_verified(version):
            return
        if version in self.directories.numbers():
            pull_version(self.registry, record, models_dir=self.directories.mending)
            self.directories.mend(record)
        else:
            pull_version(self.registry, record, models_dir=self.directories.path)
        self.directories.verify(record)

    def _probe(self, version: int) -> None:
        examples = read_golden_examples(self.directories.directory(version))
        timeout_seconds = self.settings.request_timeout_seconds
        try:
            result = replay(
                self.driver.server,
                examples,
                model=self.registry.model,
                version=version,
                timeout_seconds=timeout_seconds,
            )
        except ModelServerUnavailableError:
            raise
        except ModelServerError as error:
            raise VersionRejectedError(
                f"Version {version} refused: the model server does not answer its golden examples: {error}",
                version=version,
            ) from error
        if not result.is_good:
            raise VersionRejectedError(
                f"Version {version} refused: it answers otherwise on this host than at the training site "
                f"({result}). Its label does not move. Compare the TensorFlow of both sites.",
                version=version,
            )

    def _record(self, step: RecordServing) -> None:
        state = after_acceptance(
            self.state_file.state,
            release=step.release,
            release_sha256=step.release_sha256,
            labels=step.labels,
            is_fallback=step.is_fallback,
            now=self.clock.now(),
            bake_seconds=self.settings.bake_seconds,
        )
        write_durably(self.settings.config_path, self._start_config(step.labels))
        self.state_file.write(state)

    def _remove(self, step: RemoveVersions) -> None:
        for version in step.versions:
            self.directories.remove(version)
        self.directories.clear(tuple(Path(path) for path in step.leftovers))

    def _acknowledge(self, step: Acknowledge) -> None:
        state = self.state_file.state
        serving = state.accepted.stable if state.accepted is not None else None
        self.registry.write_acknowledgement(
            Acknowledgement(
                model=self.registry.model,
                release=step.release,
                release_sha256=step.release_sha256,
                host=self.settings.host,
                outcome=step.outcome,
                serving_version=serving,
                loaded_versions=self._loaded(),
                detail=step.detail,
                took_seconds=round(max(0.0, self.clock.monotonic() - self.began_seconds), 3),
                at=self.clock.now(),
            )
        )
        said = Said(release=step.release, outcome=step.outcome, cause=step.cause, serving_version=serving)
        self.state_file.write(state.model_copy(update={"said": said}))

    def _loaded(self) -> tuple[int, ...]:
        try:
            return self.driver.available()
        except ModelServerError:
            return ()

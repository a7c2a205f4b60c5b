"""Carries out one step of a roll-out: the only place where the agent changes anything.

Its place in the flow: the agent hands it what rollout.plan decided. Every step may be killed at any
line and repeated: files are written durably and whole, the server's configuration is replaced as a
whole, and the state says beforehand what the server is about to be told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from artifact_sync.clock import Clock
from artifact_sync.durable import write_durably
from artifact_sync.errors import ModelServerError, NotFoundError
from artifact_sync.pull import pull_version
from artifact_sync.records import Acknowledgement, VersionRecord
from artifact_sync.registry import Registry
from serving.agent_changes import after_acceptance, after_figures, after_withdrawal
from serving.agent_state import Cause, Said, Withdrawal
from serving.memory_budget import RoomVerdict
from serving.model_server import model_config_text
from serving.rollout_steps import (
    Acknowledge,
    AnnounceSwap,
    CheckMemory,
    LoadVersions,
    MeasureLatency,
    MoveLabels,
    ProbeVersion,
    PullVersion,
    RecordServing,
    RemoveVersions,
    Step,
    SwapOut,
    UnloadVersions,
    Withdraw,
    WriteConfig,
)
from serving.server_driver import ServerDriver, StopRequestedError
from serving.settings import AgentSettings
from serving.start_config import start_labels
from serving.state_file import StateFile
from serving.version_checks import VersionChecks
from serving.version_directories import VersionDirectories

_LOG = logging.getLogger("liftgate.agent")


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
        checks: what a version must show before a label points at it.
        versions: where signed version records come from; None while the bucket is not to be had.
        began_seconds: the clock's monotonic seconds when the tick began.
        beyond_repair: damaged versions that the bucket could not mend either.
        prepared: versions that passed their checks and wait for this host's turn.
        release: the release that this tick works towards, for the figures.
        room: what the last check of the memory said.
    """

    registry: Registry
    driver: ServerDriver
    settings: AgentSettings
    clock: Clock
    directories: VersionDirectories
    state_file: StateFile
    checks: VersionChecks
    versions: VersionSource | None = None
    began_seconds: float = 0.0
    beyond_repair: set[int] = field(default_factory=set)
    prepared: set[int] = field(default_factory=set)
    release: int | None = None
    room: RoomVerdict | None = None

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
            case CheckMemory() | ProbeVersion() | MeasureLatency():
                self._check(step)
            case LoadVersions() | MoveLabels() | UnloadVersions() | SwapOut():
                self._tell(step)
            case RecordServing():
                self._record(step)
            case RemoveVersions():
                self._remove(step)
            case Withdraw(label, _, cause, reason):
                state = self.state_file.state
                self.state_file.write_if_room(after_withdrawal(state, reason=reason, cause=cause, label=label))
            case AnnounceSwap():
                self._announce(step)
            case Acknowledge():
                self._acknowledge(step)

    def _check(self, step: CheckMemory | ProbeVersion | MeasureLatency) -> None:
        match step:
            case CheckMemory():
                self.room = None
                state = self.state_file.state
                self.room = self.checks.room(step, factor=state.memory_factor, peak=state.memory_peak)
                self._note("memory", self.room.figures)
            case ProbeVersion(version):
                self.checks.probe(version)
            case MeasureLatency(version, served):
                self._note(f"latency of version {version}", self.checks.latency(version, served=served))

    def _tell(self, step: LoadVersions | MoveLabels | UnloadVersions | SwapOut) -> None:
        # Written before it is sent: after a kill the server may have been told this, or not yet.
        state = self.state_file.state
        self.state_file.write_if_room(state.model_copy(update={"offered": step.versions}))
        match step:
            case LoadVersions(versions, awaited, labels):
                before_bytes = self.checks.server_bytes()
                self.driver.load(versions, awaited=awaited, labels=labels)
                self._learn(awaited, before_bytes)
            case MoveLabels(versions, labels):
                self.driver.move_labels(versions, labels=labels)
            case UnloadVersions(versions, labels):
                self.driver.unload(versions, labels=labels)
            case SwapOut(versions, labels, _):
                self.driver.vacate(versions, labels=labels)

    def _learn(self, loaded: tuple[int, ...], before_bytes: int | None) -> None:
        state = self.state_file.state
        changes: dict[str, object] = {"memory_peak": self.checks.peak(state.memory_peak)}
        if len(loaded) == 1:
            changes["memory_factor"] = self.checks.learned_factor(
                loaded[0], before_bytes=before_bytes, factor=state.memory_factor
            )
        self.state_file.write_if_room(state.model_copy(update=changes))

    def _note(self, about: str, figures: str) -> None:
        if self.release is not None:
            state = after_figures(self.state_file.state, release=self.release, about=about, figures=figures)
            self.state_file.write_if_room(state)

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
        state = self.state_file.state
        labels = state.accepted.labels if state.accepted is not None else {}
        return self._start_config(labels, withdrawal=state.withdrawal)

    def _start_config(self, wanted: Mapping[str, int], *, withdrawal: Withdrawal | None) -> bytes:
        labels = start_labels(
            wanted,
            last_good=self.state_file.state.last_good,
            withdrawn=withdrawal.version if withdrawal is not None else None,
            is_verified=self.is_verified,
        )
        versions = tuple(sorted(set(labels.values())))
        return model_config_text(self.driver.configs(versions, labels=labels)).encode()

    def _pull(self, version: int) -> None:
        record = self.versions.version(version) if self.versions is not None else self.directories.record(version)
        if record is None:
            raise NotFoundError(f"Version {version} has no signed record on this host; the bucket must be reached.")
        self.directories.remember(record)
        if self.is_verified(version):
            return
        if version in self.directories.numbers():
            pull_version(self.registry, record, models_dir=self.directories.mending, progress=self._stop_when_asked)
            self.directories.mend(record)
        else:
            pull_version(self.registry, record, models_dir=self.directories.path, progress=self._stop_when_asked)
        self.directories.verify(record)

    def _stop_when_asked(self, done_bytes: int, total_bytes: int) -> None:
        # A pull that is cut short is gone on with later; a person's request to go back does not wait for it.
        if self.driver.should_stop():
            raise StopRequestedError

    def _record(self, step: RecordServing) -> None:
        state = after_acceptance(
            self.state_file.state,
            release=step.release,
            release_sha256=step.release_sha256,
            labels=step.labels,
            is_fallback=step.is_fallback,
            is_watched=step.is_watched,
            now=self.clock.now(),
            bake_seconds=self.settings.bake_seconds,
        )
        config = self._start_config(step.labels, withdrawal=state.withdrawal)
        write_durably(self.settings.config_path, config)
        self.state_file.write(state)

    def _remove(self, step: RemoveVersions) -> None:
        for version in step.versions:
            self.directories.remove(version)
        self.directories.clear(tuple(Path(path) for path in step.leftovers))

    def _announce(self, step: AnnounceSwap) -> None:
        state = self.state_file.state
        detail = (
            f"{str(step)[:1].upper()}{str(step)[1:]}: both do not fit. {step.figures} "
            "Requests fail from now until it is loaded and proved."
        )
        _LOG.warning("%s", detail)
        self.state_file.write_if_room(state.model_copy(update={"announced_swap": step.release}))
        if step.is_bucket_reachable and state.accepted is not None:
            # What is served until then is the release before, so it is said about that one.
            before = state.accepted
            self._say(Acknowledge(before.release, before.release_sha256, "serving", "", detail), cause="swap")

    def _acknowledge(self, step: Acknowledge) -> None:
        self._say(step, cause=step.cause)

    def _say(self, step: Acknowledge, *, cause: Cause | Literal["", "swap"]) -> None:
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
        said = Said(release=step.release, outcome=step.outcome, cause=cause, serving_version=serving)
        self.state_file.write(self.state_file.state.model_copy(update={"said": said}))

    def _loaded(self) -> tuple[int, ...]:
        try:
            return self.driver.available()
        except ModelServerError:
            return ()

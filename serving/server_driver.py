"""Drives this host's model server: what it holds, which labels answer, loading and waiting.

Its place in the flow: the step runner's hand on the server. Whatever is told is a whole
configuration; what was reached is only believed when the server says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from artifact_sync.clock import Clock
from artifact_sync.errors import ModelServerError, ModelServerUnavailableError
from serving.model_server import ModelConfig, ModelServer, VersionState, VersionStatus
from serving.settings import AgentSettings

_POLL_SECONDS = 0.1
# TensorFlow Serving takes a new configuration at its next look at the disk (every second) and
# remembers the end of an earlier try until then, so an END that was there before is not yet news.
_STALE_END_SECONDS = 5.0
_UNLOAD_SECONDS = 10.0
_LABELS = ("stable", "canary", "shadow")


class VersionRejectedError(ModelServerError):
    """The server was asked properly and this version itself did not do: not loaded, or wrong answers."""

    def __init__(self, message: str, *, version: int) -> None:
        super().__init__(message)
        self.version = version


class StopRequestedError(Exception):
    """The process was asked to end while a step waited; nothing is wrong."""


@dataclass(frozen=True)
class ServerDriver:
    """One model on one model server.

    Args:
        server: the model server.
        model: the model's name.
        model_dir: the directory with one integer directory a version.
        settings: the time limits.
        clock: time.
        should_stop: asked while waiting.
    """

    server: ModelServer
    model: str
    model_dir: Path
    settings: AgentSettings
    clock: Clock
    should_stop: Callable[[], bool]

    def statuses(self) -> dict[int, VersionStatus]:
        """Return what the server reports, by version."""
        return {status.version: status for status in self.server.status(self.model)}

    def available(self) -> tuple[int, ...]:
        """Return the versions that answer, ascending."""
        return tuple(sorted(version for version, status in self.statuses().items() if _is_available(status)))

    def labels(self) -> dict[str, int]:
        """Return label → version as the server answers."""
        served = {}
        for label in _LABELS:
            try:
                served[label] = self.server.signature(self.model, label=label).version
            except ModelServerUnavailableError:
                raise
            except ModelServerError:
                # The server refuses a label that it does not have, or one whose version is gone.
                continue
        return served

    def configs(self, versions: tuple[int, ...], *, labels: Mapping[str, int]) -> tuple[ModelConfig, ...]:
        """Return the server's whole configuration for these versions; no version means no model."""
        if not versions:
            return ()
        base_path = str(self.model_dir.absolute())
        return (ModelConfig(name=self.model, base_path=base_path, versions=versions, labels=dict(labels)),)

    def load(self, versions: tuple[int, ...], *, awaited: tuple[int, ...], labels: Mapping[str, int]) -> None:
        """Have the server hold `versions`; return when all that are `awaited` answer.

        Raises:
            VersionRejectedError: one did not load, or not in time.
            ModelServerError: the server refuses the configuration or cannot be reached.
            StopRequestedError: the process is to end.
        """
        before = self.statuses()
        try:
            self.tell(versions, labels=labels)
        except ModelServerUnavailableError:
            raise
        except ModelServerError as error:
            # For a model that is new to it the server waits, and says here that the load failed.
            for version in awaited:
                status = self.statuses().get(version)
                if status is not None and status.state is VersionState.END:
                    self._reject(version, status.error_message or str(error))
            raise
        self._wait_until_available(awaited, before=before)

    def move_labels(self, versions: tuple[int, ...], *, labels: Mapping[str, int]) -> None:
        """Point labels at versions that are AVAILABLE, and see that the server answers so.

        Raises:
            ModelServerError: it does not.
        """
        self.tell(versions, labels=labels)
        served = self.labels()
        if served != dict(labels):
            raise ModelServerError(
                f"The model server took the labels {dict(labels)} and answers with {served}. "
                "Look at its log, and whether something else configures it too."
            )

    def unload(self, versions: tuple[int, ...], *, labels: Mapping[str, int]) -> None:
        """Have the server hold `versions` only; wait a while for the others to be gone."""
        self.tell(versions, labels=labels)
        started = self.clock.monotonic()
        while set(self.available()) - set(versions) and self.clock.monotonic() - started < _UNLOAD_SECONDS:
            self._pause()

    def vacate(self, versions: tuple[int, ...], *, labels: Mapping[str, int]) -> None:
        """Have the server hold `versions` only, and wait until the others have given their memory back.

        Raises:
            ModelServerError: they have not, in the time that a load may take.
            StopRequestedError: the process is to end.
        """
        self.tell(versions, labels=labels)
        started = self.clock.monotonic()
        while left := [one.version for one in self.statuses().values() if _holds_memory(one, besides=versions)]:
            if self.clock.monotonic() - started > self.settings.load_timeout_seconds:
                raise ModelServerError(
                    f"The model server does not let go of version {', '.join(map(str, left))} within "
                    f"{self.settings.load_timeout_seconds:g} s (load_timeout_seconds). Look at its log."
                )
            self._pause()

    def tell(self, versions: tuple[int, ...], *, labels: Mapping[str, int]) -> None:
        """Replace the server's whole configuration."""
        configs = self.configs(versions, labels=labels)
        self.server.reload(configs, timeout_seconds=self.settings.load_timeout_seconds)

    def _wait_until_available(self, awaited: tuple[int, ...], *, before: Mapping[int, VersionStatus]) -> None:
        started = self.clock.monotonic()
        while True:
            statuses = self.statuses()
            waited_seconds = self.clock.monotonic() - started
            for version in awaited:
                status = statuses.get(version)
                is_news = waited_seconds > _STALE_END_SECONDS or status != before.get(version)
                if status is not None and status.state is VersionState.END and status.error_message and is_news:
                    self._reject(version, status.error_message)
            waiting = [version for version in awaited if not _is_available(statuses.get(version))]
            if not waiting:
                return
            if waited_seconds > self.settings.load_timeout_seconds:
                self._give_up(waiting[0], statuses.get(waiting[0]))
            self._pause()

    def _give_up(self, version: int, status: VersionStatus | None) -> NoReturn:
        found = f"it is {status.state.name}" if status is not None else "the server does not know of it"
        self._reject(
            version,
            f"{found} after {self.settings.load_timeout_seconds:g} s (load_timeout_seconds); "
            f"check that the server can read {self.model_dir / str(version)}, and its log",
        )

    def _reject(self, version: int, detail: str) -> NoReturn:
        raise VersionRejectedError(
            f"Version {version} refused: the model server did not load it: {detail.rstrip('.')}. "
            "What was served before stays in service.",
            version=version,
        )

    def _pause(self) -> None:
        if self.should_stop():
            raise StopRequestedError
        self.clock.sleep(_POLL_SECONDS)


def _holds_memory(status: VersionStatus, *, besides: tuple[int, ...]) -> bool:
    return status.version not in besides and status.state is not VersionState.END


def _is_available(status: VersionStatus | None) -> bool:
    return status is not None and status.state is VersionState.AVAILABLE

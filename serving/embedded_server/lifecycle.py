"""Loads and unloads versions until what is in memory is what the configuration wants.

Its place in the flow: `apply` takes a configuration, a thread polls the base paths, and loads run
in threads of their own at low priority, so that answering requests comes first. A version that does
not load leaves the old one serving, and is tried again when its files have changed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from serving.embedded_server.catalogue import Catalogue, LoadedModel, ModelVersion
from serving.embedded_server.discovery import ServedModel, choose_versions, find_versions, fingerprint
from serving.embedded_server.priority import lower_priority
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.transition import Stage, Transition, availability_preserving

_LOG = logging.getLogger(__name__)
_UNLOAD_THREADS = 4


@dataclass(frozen=True)
class LifecycleSettings:
    """How often to look, and how often to try again."""

    poll_seconds: float = 1.0
    max_load_retries: int = 5
    load_retry_seconds: float = 60.0
    load_threads: int = 1
    transition: Transition = availability_preserving


class Lifecycle:
    """The one writer of the catalogue's stages.

    Args:
        catalogue: where versions live and requests find them.
        load: loads and warms up a version; raises StatusError when it cannot.
        settings: intervals and limits; a `poll_seconds` of 0 or less looks at the base paths only
            when a configuration is applied.
    """

    def __init__(
        self, catalogue: Catalogue, *, load: Callable[[ModelVersion], LoadedModel], settings: LifecycleSettings
    ) -> None:
        self._catalogue = catalogue
        self._changed = catalogue.changed
        self._load_model = load
        self._settings = settings
        self._models: dict[str, ServedModel] = {}
        self._wanted: dict[str, dict[int, Path]] = {}
        self._not_found: dict[str, StatusError] = {}
        self._retries: list[tuple[float, ModelVersion]] = []
        self._last_seen: dict[ModelVersion, tuple[tuple[str, int, int], ...]] = {}
        self._config_lock = threading.Lock()
        self._stopping = threading.Event()
        self._loaders = ThreadPoolExecutor(
            max(1, settings.load_threads), thread_name_prefix="load", initializer=lower_priority
        )
        self._unloaders = ThreadPoolExecutor(_UNLOAD_THREADS, thread_name_prefix="unload")
        self._poller = threading.Thread(target=self._poll_for_ever, name="lifecycle", daemon=True)

    @property
    def model_names(self) -> frozenset[str]:
        """The models of the configuration that holds now."""
        return frozenset(self._models)

    def start(self) -> None:
        """Begin to poll the base paths and to retry loads."""
        self._poller.start()

    def stop(self) -> None:
        """End all threads and give every model's memory back; no request may be running any more."""
        self._stopping.set()
        if self._poller.is_alive():
            self._poller.join()
        self._loaders.shutdown(wait=True, cancel_futures=True)
        self._unloaders.shutdown(wait=True, cancel_futures=True)
        for entry in self._catalogue.all_versions():
            if entry.loaded is not None:
                entry.loaded.close()
                entry.loaded = None

    def apply(self, models: Iterable[ServedModel], *, may_new_labels_wait: bool) -> tuple[str, ...]:
        """Replace the configuration and begin to move towards it; return the names that are new.

        Raises:
            StatusError: a label points at a version that is not available; nothing has changed.
        """
        with self._config_lock:
            by_name = {model.name: model for model in models}
            self._catalogue.set_labels(by_name.values(), may_new_labels_wait=may_new_labels_wait)
            new = tuple(name for name in by_name if name not in self._models)
            self._models = by_name
            self._look()
            return new

    def wait_until_settled(self, names: Iterable[str], *, timeout_seconds: float | None) -> None:
        """Wait until every version of these models is available or failed to load once, or there is none.

        The real server waits for one version of each model; then a label of the start's configuration
        may point at nothing for a moment.

        Raises:
            StatusError: UNKNOWN: models that have no available version, and why; DEADLINE_EXCEEDED.
        """
        names = tuple(names)
        with self._changed:
            if not self._changed.wait_for(lambda: all(map(self._is_settled, names)), timeout_seconds):
                raise StatusError(Code.DEADLINE_EXCEEDED, f"Models {', '.join(names)} are still loading")
            failures = [failure for name in names if (failure := self._failure(name))]
        if failures:
            raise StatusError(
                Code.UNKNOWN, f"{len(failures)} model(s) did not become available: {{{''.join(failures)}}}"
            )

    # What follows runs under `_config_lock`.

    def _look(self) -> None:
        """Look at the base paths; one that cannot be listed leaves its model as it is."""
        for name, model in self._models.items():
            try:
                found = find_versions(model)
            except StatusError as error:
                if name not in self._not_found:
                    _LOG.warning("%s", error.message)
                self._not_found[name] = error
                continue
            self._not_found.pop(name, None)
            wanted = choose_versions(found, model.policy)
            self._forget_mended(name, wanted)
            self._want(name, wanted)
        for name in set(self._wanted) - set(self._models):
            self._want(name, {})

    def _forget_mended(self, name: str, wanted: Mapping[int, Path]) -> None:
        """Let a version that failed be loaded anew when its files were changed and are at rest.

        The real server never tries it again: a copy that was still under way stays broken for ever.
        """
        with self._changed:
            entries = [entry for entry in self._catalogue.versions(name).values() if entry.version in wanted]
        failed = [entry for entry in entries if entry.stage is Stage.ENDED and entry.error and not entry.is_dismissed]
        for entry in failed:
            found, seen = fingerprint(entry.path), self._last_seen.pop(entry, None)
            if found != entry.fingerprint and found == seen:
                _LOG.info("model %s version %d: its files have changed, it is tried again", name, entry.version)
                entry.is_dismissed = True
            elif found != entry.fingerprint:
                self._last_seen[entry] = found

    def _want(self, name: str, wanted: dict[int, Path]) -> None:
        with self._changed:
            if wanted != self._wanted.get(name):
                _LOG.info("model %s: wanted versions are %s", name, sorted(wanted) or "none")
            self._wanted[name] = wanted
            self._advance(name)

    # What follows runs under `_changed`.

    def _advance(self, name: str) -> None:
        """Take every step that is possible now; each load or unload that ends calls this again."""
        if self._stopping.is_set():
            return
        versions, wanted = self._catalogue.versions(name), self._wanted.get(name, {})
        for entry in versions.values():
            if entry.version not in wanted:
                self._dismiss(entry)
        for version, path in wanted.items():
            entry_or_none = versions.get(version)
            if entry_or_none is None or (entry_or_none.stage is Stage.ENDED and entry_or_none.is_dismissed):
                versions[version] = ModelVersion(name, version, path)
        transition = self._settings.transition
        while step := transition({version: entry.stage for version, entry in versions.items()}, wanted.keys()):
            entry = versions[step.version]
            if step.action == "load":
                entry.stage = Stage.LOADING
                self._loaders.submit(self._load, entry)
            else:
                # From here on no request finds it.
                entry.stage, entry.is_dismissed = Stage.UNLOADING, True
                self._unloaders.submit(self._unload, entry)
        self._changed.notify_all()

    def _dismiss(self, entry: ModelVersion) -> None:
        is_waiting_to_retry = any(waiting is entry for _, waiting in self._retries)
        if entry.stage is Stage.NEW or is_waiting_to_retry:
            entry.stage = Stage.ENDED
            self._retries = [retry for retry in self._retries if retry[1] is not entry]
        # When it is wanted again it may try again.
        entry.is_dismissed = entry.is_dismissed or entry.stage is Stage.ENDED

    def _is_wanted(self, entry: ModelVersion) -> bool:
        # By identity: a version that was dismissed and came back is another entry.
        is_current = self._catalogue.versions(entry.model).get(entry.version) is entry
        return is_current and entry.version in self._wanted.get(entry.model, {})

    def _is_settled(self, name: str) -> bool:
        return all(
            entry.stage in (Stage.READY, Stage.ENDED) or entry.failed_attempts for entry in self._wanted_entries(name)
        )

    def _failure(self, name: str) -> str | None:
        if any(entry.stage is Stage.READY for entry in self._catalogue.versions(name).values()):
            return None
        entries = self._wanted_entries(name)
        if not entries:
            why = self._not_found.get(name) or f"NOT_FOUND: No versions of servable {name} found"
            return f"{{{{name: {name}}} due to error: {why}}}, "
        return "".join(
            f"{{{{name: {name} version: {entry.version}}} due to error: {entry.error}}}, " for entry in entries
        )

    def _wanted_entries(self, name: str) -> list[ModelVersion]:
        versions = self._catalogue.versions(name)
        return [versions[version] for version in sorted(self._wanted.get(name, {})) if version in versions]

    # What follows runs in threads of its own.

    def _load(self, entry: ModelVersion) -> None:
        with self._changed:
            if not self._is_wanted(entry):
                entry.stage, entry.is_dismissed = Stage.ENDED, True
                return self._advance(entry.model)
            entry.is_started = True
            self._changed.notify_all()
        entry.fingerprint = fingerprint(entry.path)
        began = time.monotonic()
        try:
            loaded = self._load_model(entry)
        except StatusError as error:
            return self._fail(entry, error)
        except Exception as error:  # noqa: BLE001  (the edge of this thread: the version must not stay LOADING)
            _LOG.exception("model %s version %d: loading failed unexpectedly", entry.model, entry.version)
            return self._fail(entry, StatusError(Code.INTERNAL, f"{type(error).__name__}: {error}"))
        took = time.monotonic() - began
        _LOG.info("model %s version %d: available, loaded in %.2f s", entry.model, entry.version, took)
        with self._changed:
            entry.loaded, entry.error, entry.stage = loaded, None, Stage.READY
            return self._advance(entry.model)

    def _fail(self, entry: ModelVersion, error: StatusError) -> None:
        with self._changed:
            entry.error = error
            entry.failed_attempts += 1
            may_retry = entry.failed_attempts <= self._settings.max_load_retries and self._is_wanted(entry)
            if may_retry:
                self._retries.append((time.monotonic() + self._settings.load_retry_seconds, entry))
            else:
                entry.stage = Stage.ENDED
            self._advance(entry.model)
        what = "will be tried again" if may_retry else "given up"
        _LOG.error("model %s version %d does not load, %s: %s", entry.model, entry.version, what, error)

    def _unload(self, entry: ModelVersion) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not entry.requests)
            loaded, entry.loaded = entry.loaded, None
        if loaded is not None:
            loaded.close()
        _LOG.info("model %s version %d: unloaded", entry.model, entry.version)
        with self._changed:
            entry.stage = Stage.ENDED
            self._advance(entry.model)

    def _poll_for_ever(self) -> None:
        interval = self._settings.poll_seconds
        next_look = time.monotonic() + interval
        while not self._stopping.wait(min(interval, 0.1) if interval > 0 else 0.1):
            self._retry_due_loads()
            if interval > 0 and next_look <= time.monotonic():
                with self._config_lock:
                    self._look()
                next_look = time.monotonic() + interval

    def _retry_due_loads(self) -> None:
        with self._changed:
            now = time.monotonic()
            due = [entry for moment, entry in self._retries if moment <= now]
            self._retries = [retry for retry in self._retries if retry[0] > now]
            for entry in due:
                self._loaders.submit(self._load, entry)

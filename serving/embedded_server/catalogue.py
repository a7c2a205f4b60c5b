"""Which version answers a request, and how many requests each version is busy with.

Its place in the flow: every request passes through `borrow`; the lifecycle alone changes stages.
One lock guards it all and is held for microseconds, never while a model loads or runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from serving.embedded_server.discovery import ServedModel
from serving.embedded_server.status import StatusError, failed_precondition, invalid_argument, not_found
from serving.embedded_server.transition import Stage


class LoadedModel(Protocol):
    """A SavedModel in memory; signature_defs maps names to tensorflow.SignatureDef messages."""

    @property
    def signature_defs(self) -> Mapping[str, Any]:
        """Every signature by its key."""
        ...

    def run(self, feeds: Mapping[str, Any], fetches: list[str], *, timeout_seconds: float | None) -> list[Any]:
        """Run the graph: arrays by tensor name in, arrays in the order of `fetches` out."""
        ...

    def submit(
        self,
        feeds: Mapping[str, Any],
        fetches: list[str],
        *,
        timeout_seconds: float | None,
        done: Callable[[list[Any] | StatusError], None],
    ) -> None:
        """Run the graph elsewhere and return at once.

        `done` is called exactly once, from any thread, with the arrays or the error; it may neither
        block nor raise.
        """
        ...

    def close(self) -> None:
        """Give its memory back."""
        ...


@dataclass(eq=False)
class ModelVersion:
    """One version's life from START to END; a version that comes back later is a new one of these."""

    model: str
    version: int
    path: Path
    stage: Stage = Stage.NEW
    error: StatusError | None = None
    loaded: LoadedModel | None = None
    failed_attempts: int = 0
    # What lay there when it failed: it is tried again once that is something else.
    fingerprint: tuple[tuple[str, int, int], ...] = ()
    requests: int = 0
    is_started: bool = False
    is_dismissed: bool = False


class Catalogue:
    """All versions of all models, by model name and version."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._versions: dict[str, dict[int, ModelVersion]] = {}
        self._labels: dict[str, dict[str, int]] = {}

    def versions(self, model: str) -> dict[int, ModelVersion]:
        """Return the versions of a model, which the lifecycle may change under `changed`."""
        return self._versions.setdefault(model, {})

    def all_versions(self) -> list[ModelVersion]:
        """Return every version of every model."""
        with self.changed:
            return [entry for versions in self._versions.values() for entry in versions.values()]

    def status(self, model: str, version: int | None = None) -> list[ModelVersion]:
        """Return the versions of a model, newest first.

        Raises:
            StatusError: NOT_FOUND: there is none.
        """
        with self.changed:
            known = self._versions.get(model, {})
            found = [known[number] for number in sorted(known, reverse=True) if version in (None, number)]
        if not found:
            what = "any versions" if version is None else f"version {version}"
            raise not_found(f"Could not find {what} of model {model}")
        return found

    def take(self, model: str, *, version: int | None = None, label: str | None = None) -> ModelVersion:
        """Return the version that answers; it stays loaded until it is given back.

        Raises:
            StatusError: NOT_FOUND: no such model or version; INVALID_ARGUMENT: no such label.
        """
        with self.changed:
            entry = self._choose(model, version, label)
            entry.requests += 1
            return entry

    def give_back(self, entry: ModelVersion) -> None:
        """End what `take` began, once, when the answer is complete."""
        with self.changed:
            entry.requests -= 1
            if not entry.requests and entry.stage is Stage.UNLOADING:
                self.changed.notify_all()

    @contextmanager
    def borrow(self, model: str, *, version: int | None = None, label: str | None = None) -> Iterator[ModelVersion]:
        """Take a version for the length of a block.

        Raises:
            StatusError: as `take`.
        """
        entry = self.take(model, version=version, label=label)
        try:
            yield entry
        finally:
            self.give_back(entry)

    def _choose(self, model: str, version: int | None, label: str | None) -> ModelVersion:
        if label is not None:
            version = self._labels.get(model, {}).get(label)
            if version is None:
                raise invalid_argument(f"Unrecognized servable version label: {label}")
        known = self._versions.get(model, {})
        if version is not None:
            entry = known.get(version)
            if entry is None or entry.stage is not Stage.READY:
                raise not_found(f"Servable not found for request: Specific({model}, {version})")
            return entry
        ready = [number for number, entry in known.items() if entry.stage is Stage.READY]
        if not ready:
            raise not_found(f"Servable not found for request: Latest({model})")
        return known[max(ready)]

    def set_labels(self, models: Iterable[ServedModel], *, may_new_labels_wait: bool) -> None:
        """Replace all labels; a label must point at an available version.

        Args:
            models: the whole configuration.
            may_new_labels_wait: whether a label that did not exist, or stays as it is, may point at a
                version that is not loaded. Moving an existing label there is refused all the same.

        Raises:
            StatusError: FAILED_PRECONDITION; the labels are unchanged.
        """
        with self.changed:
            labels = {model.name: dict(model.labels) for model in models}
            for name, by_label in labels.items():
                for label, version in by_label.items():
                    # A label that stays where it is moves nobody, whatever became of its version.
                    is_moved = self._labels.get(name, {}).get(label, version) != version
                    if is_moved or not may_new_labels_wait:
                        self._check_available(name, version)
            self._labels = labels

    def _check_available(self, model: str, version: int) -> None:
        entry = self._versions.get(model, {}).get(version)
        if entry is None or entry.stage is not Stage.READY:
            raise failed_precondition(
                f"Request to assign label to version {version} of model {model}, "
                "which is not currently available for inference"
            )

"""What the server counts: requests, runs, batches, loads and warm-ups.

Its place in the flow: one object is made by the server and handed to whoever has something to
count; REST shows its text. A request costs one look-up and a few additions under one lock; the
series of TensorFlow Serving and our own are both added up from the same counts, when somebody looks.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from serving.embedded_server.catalogue import ModelVersion
from serving.embedded_server.metrics_counts import Counts, Distribution, RequestKey
from serving.embedded_server.metrics_families import families
from serving.embedded_server.metrics_text import exposition
from serving.embedded_server.status import Code

_OTHER = "other"
# Names that clients invented: the first few are shown, which is enough to see a typing error.
_MAX_UNKNOWN_MODELS = 32
_MAX_NAME_LENGTH = 200


class Metrics:
    """Counts; safe to call from any thread.

    Args:
        versions: returns the versions whose states are shown (`Catalogue.all_versions`).
    """

    def __init__(self, *, versions: Callable[[], Iterable[ModelVersion]] = tuple) -> None:
        self._versions = versions
        self._lock = threading.Lock()
        self._counts = Counts()
        self._requests = self._counts.requests
        self._unknown_models: set[str] = set()

    def request(
        self,
        *,
        model: str,
        version: int | None,
        api: str,
        entrypoint: Literal["GRPC", "REST"],
        status: Code,
        microseconds: float,
    ) -> None:
        """Count an answered request.

        Args:
            model: the name as the client sent it; names that nobody knows are counted together after the first few.
            version: the version that answered; None when none was found.
            api: "Predict", "Classify", ...; in lower case on REST.
            entrypoint: which door it came in by.
            status: how it ended.
            microseconds: from the request's arrival to its answer.
        """
        with self._lock:
            found = self._requests.get((model, version, api, entrypoint, status))
            if found is None:
                found = self._first_request(model, version, api, entrypoint, status)
            found.counts[bisect_left(found.bounds, microseconds)] += 1
            found.total += microseconds

    def runtime(self, *, model: str, version: int, api: str, microseconds: float) -> None:
        """Count the time that a request spent in TensorFlow."""
        with self._lock:
            self._counts.runtime(model, version, api).add_value(microseconds)

    def examples(self, *, model: str, count: int) -> None:
        """Count the Examples of a MultiInference, as the real server does of no other method."""
        with self._lock:
            self._counts.examples(model).add_value(count)

    def batch(
        self,
        *,
        model: str,
        version: int,
        queuing_microseconds: Sequence[float],
        input_sizes: Sequence[int],
        batch_size: int,
        padding: int,
        thread_pool_name: str = "batch_threads",
    ) -> None:
        """Count one run of a batch.

        Args:
            model: its model.
            version: its version.
            queuing_microseconds: for each request in it, how long it waited.
            input_sizes: for each request in it, its size in dimension 0.
            batch_size: what was run, padding included.
            padding: how much of that was padding.
            thread_pool_name: of the batching parameters.
        """
        with self._lock:
            batches = self._counts.batches(model, version)
            queuing = self._counts.queuing(thread_pool_name)
            for waited in queuing_microseconds:
                batches.queuing.add_value(waited)
                queuing.add_value(waited)
            for size in input_sizes:
                self._counts.input_sizes.add_value(size)
            batches.sizes.add_value(batch_size)
            self._counts.padding(batch_size).add_value(padding)

    def load(self, *, model: str, version: int, path: str, status: Code, microseconds: float) -> None:
        """Count an attempt to load a version."""
        with self._lock:
            self._counts.load(model, version, path, status, microseconds)

    def warm_up(self, *, path: str, status: Code, records: int, microseconds: float) -> None:
        """Count a version's warm-up: how many records were run, and how long it took."""
        with self._lock:
            self._counts.warm_up(path, status, records, microseconds)

    def text(self) -> str:
        """Return everything in Prometheus's text format."""
        versions = list(self._versions())
        return exposition(families(self._snapshot(), versions))

    def value(self, metric_name: str) -> int:
        """Return the first value of a counter or gauge by TensorFlow's name ("/tensorflow/serving/..."), or 0.

        The first and not the sum, and 0 for distributions: as the real server does for ReloadConfigRequest.
        """
        wanted = metric_name.replace("/", ":")
        found = [family for family in families(self._snapshot(), []) if family.name == wanted]
        values = list(found[0].samples.values()) if found else []
        return int(values[0]) if values and isinstance(values[0], int | float) else 0

    def _snapshot(self) -> Counts:
        # A page takes milliseconds to write: requests are not to wait for it.
        with self._lock:
            return self._counts.snapshot()

    def _first_request(self, model: str, version: int | None, api: str, entrypoint: str, status: Code) -> Distribution:
        if version is None and not self._is_named(model):
            model = _OTHER
        key: RequestKey = (model, version, api, entrypoint, status)
        return self._counts.new_request(key)

    def _is_named(self, model: str) -> bool:
        if model in self._unknown_models:
            return True
        if len(model) > _MAX_NAME_LENGTH or len(self._unknown_models) >= _MAX_UNKNOWN_MODELS:
            return False
        self._unknown_models.add(model)
        return True

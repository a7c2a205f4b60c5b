"""What the server counts: requests, runs, batches, loads and warm-ups.

Its place in the flow: one object is made by the server and handed to whoever has something to
count; REST shows its text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from serving.embedded_server.catalogue import ModelVersion
from serving.embedded_server.status import Code


class Metrics:
    """Counts; safe to call from any thread.

    Args:
        versions: returns the versions whose states are shown (`Catalogue.all_versions`).
    """

    def __init__(self, *, versions: Callable[[], Iterable[ModelVersion]] = tuple) -> None:
        self._versions = versions

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
            model: the name as the client sent it; names nobody knows are counted together after the first few.
            version: the version that answered; None when none was found.
            api: "Predict", "Classify", ...; in lower case on REST.
            entrypoint: which door it came in by.
            status: how it ended.
            microseconds: from the request's arrival to its answer.
        """

    def runtime(self, *, model: str, version: int, api: str, microseconds: float) -> None:
        """Count the time that a request spent in TensorFlow."""

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

    def load(self, *, model: str, version: int, path: str, status: Code, microseconds: float) -> None:
        """Count an attempt to load a version."""

    def warm_up(self, *, path: str, status: Code, records: int, microseconds: float) -> None:
        """Count a version's warm-up: how many records were run, and how long it took."""

    def text(self) -> str:
        """Return everything in Prometheus's text format."""
        return ""

    def value(self, metric_name: str) -> int:
        """Return a counter's sum over all labels, by TensorFlow's name; 0 for one that is not counted."""
        return 0

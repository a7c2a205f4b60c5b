"""Counts where the time of the inputs goes, and brings their errors through TensorFlow.

Its place in the flow: the session gives one to its input pipeline and iterates through `watch`; the
share of waiting goes into the progress of a training and into `liftgate data bench`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from artifact_sync.errors import LiftgateError

T = TypeVar("T")

Stage = Literal["reading", "parsing", "augmenting", "starving"]
"""reading: from disk or network, the digest included; parsing: records to pixels; augmenting: pixels changed,
batches cut; starving: no window was read yet when the next batch was due. The threads' times add up."""


@dataclass
class InputMeter:
    """Seconds of each stage and of the consumer, since the start; safe to use from several threads.

    Attributes:
        seconds: by stage.
        waited_seconds: how long the consumer waited for batches.
        images: pictures put into batches.
        read_bytes: bytes of blocks.
    """

    seconds: dict[Stage, float] = field(
        default_factory=lambda: {"reading": 0.0, "parsing": 0.0, "augmenting": 0.0, "starving": 0.0}
    )
    waited_seconds: float = 0.0
    images: int = 0
    read_bytes: int = 0
    _failure: LiftgateError | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def stage(self, name: Stage, *, images: int = 0, read_bytes: int = 0) -> Iterator[None]:
        """Count what is done inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] += time.perf_counter() - began
                self.images += images
                self.read_bytes += read_bytes

    @contextmanager
    def keeping_errors(self) -> Iterator[None]:
        """Keep our error that ends the inputs, since TensorFlow hands on nothing but its text."""
        try:
            yield
        except LiftgateError as error:
            self._failure = error
            raise

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches and count the time until each of them comes.

        Raises:
            LiftgateError: the inputs ended by it.
        """
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except Exception:
                if self._failure is not None:
                    raise self._failure from None
                raise
            finally:
                self.waited_seconds += time.perf_counter() - began
            yield batch

"""SIGTERM and SIGINT as a flag that the training looks at between two steps.

Its place in the flow: the trainer ends at a checkpoint when it is raised. TensorFlow installs a
handler of its own when a strategy is made, so this one is installed after that.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self.is_requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Have the two signals raise the flag; only the main thread may."""
        before = {number: signal.signal(number, self._request) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.is_requested = True

"""SIGTERM and SIGINT as a flag that the training looks at between two steps.

Its place in the flow: the trainer ends at a checkpoint when it is raised. TensorFlow installs a
handler of its own when a strategy is made, so this one is installed after that. Who asked is not
kept waiting by a step that hangs: after a time the process ends at the checkpoint that it has.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from training_cluster.cluster import INTERRUPTED_EXIT_CODE

_PATIENCE_SECONDS = 25.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Whether this process was asked to end.

    Args:
        patience_seconds: how long after the request it may take to end in order.
    """

    def __init__(self, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self.is_requested = False
        self._patience_seconds = patience_seconds

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Have the two signals raise the flag; only the main thread may.

        A request that is not answered within the patience ends the process: checkpoints are whole or not
        there, so nothing but the steps since the last one is lost.
        """
        before = {number: signal.signal(number, self._request) for number in _SIGNALS}
        # The main thread may sit in TensorFlow for long, where Python runs no handler; the pipe is written at once.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        is_over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(reading, is_over), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            signal.set_wakeup_fd(wakeup_before)
            os.close(writing)
            watcher.join()
            os.close(reading)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.is_requested = True

    def _watch(self, reading: int, is_over: threading.Event) -> None:
        while signals := os.read(reading, 64):
            if not set(signals) & set(_SIGNALS):
                continue
            self.is_requested = True
            if is_over.wait(self._patience_seconds):
                return
            with suppress(OSError):
                sys.stderr.write(
                    f"Training interrupted: no step ended within {self._patience_seconds:.0f} s of the request to end. "
                    "It goes on from the checkpoint before when it is started again.\n"
                )
                sys.stderr.flush()
            os._exit(INTERRUPTED_EXIT_CODE)

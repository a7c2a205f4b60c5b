"""Threads that give way: loading a version is never as urgent as answering a request.

Its place in the flow: the lifecycle's loading threads begin with it, and so do the threads that
TensorFlow restores variables in. The lowest priority that still gets its turn on a machine that is
busy throughout: with SCHED_IDLE a load there would take minutes.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

_NICENESS = 19


def lower_priority() -> None:
    """Have this thread, and those that it starts from now on, give way to others."""
    # On Linux a thread has a priority of its own, and hands it on; elsewhere it is the process's.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def at_low_priority(act: Callable[[], None]) -> None:
    """Do something in a thread that gives way, and wait for it; what it starts gives way too.

    Raises:
        BaseException: what `act` raises.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            lower_priority()
            act()
        except BaseException as error:  # noqa: BLE001  (raised again by the caller)
            errors.append(error)

    thread = threading.Thread(target=run, name="low-priority")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]

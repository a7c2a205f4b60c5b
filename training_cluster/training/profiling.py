"""What the devices do: the profiler's window over some steps when somebody wishes for one, and their memory.

Its place in the flow: the session lets the window look now and then and tells it of each step;
TensorBoard's profile page reads what it writes. It changes nothing of what is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from training_cluster.training.wishes import PROFILE, Wishes


class ProfilerWindow:
    """At most one recording at a time.

    Args:
        wishes: to this process.
        directory: the event files that the profile belongs to.
        tell: is told in one sentence what goes on.
    """

    def __init__(self, wishes: Wishes, directory: Path, *, tell: Callable[[str], None]) -> None:
        self._wishes = wishes
        self._directory = directory
        self._tell = tell
        self._left = 0

    def look(self) -> None:
        """Begin to record when somebody wishes for it."""
        steps = 0 if self._left else self._wishes.profiled_steps()
        if not steps:
            return
        try:
            tf.profiler.experimental.start(str(self._directory))
        except (tf.errors.OpError, OSError) as error:
            self._wishes.fulfil(PROFILE)
            self._tell(f"the profiler did not begin: {str(error).splitlines()[0]}")
            return
        self._left = steps

    def after_step(self) -> None:
        """Count a step, and end the recording with the last one wished for."""
        if self._left:
            self._left -= 1
            if not self._left:
                self._end()

    def close(self) -> None:
        """End a recording that goes on."""
        if self._left:
            self._left = 0
            self._end()

    def _end(self) -> None:
        self._wishes.fulfil(PROFILE)
        try:
            tf.profiler.experimental.stop()
        except (tf.errors.OpError, OSError) as error:
            self._tell(f"the profile was not written: {str(error).splitlines()[0]}")
            return
        self._tell(f"the profile is in {self._directory}")


def gpu_memory() -> dict[str, float]:
    """Return the most memory that any GPU of this host held so far, if there is one."""
    devices = tf.config.list_logical_devices("GPU")
    peaks = [tf.config.experimental.get_memory_info(device.name)["peak"] / 1e6 for device in devices]
    return {"gpu_memory_megabytes": max(peaks)} if peaks else {}

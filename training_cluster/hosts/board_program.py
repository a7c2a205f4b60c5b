"""TensorBoard as a program that ends when its input ends, and that does without TensorFlow.

Its place in the flow: `tensorboard` starts it here or on a training host. Closing an SSH connection leaves a
host's commands running; this one notices. Loading TensorFlow would take ten seconds, and a GPU's memory,
for pages that need none of it.
"""

from __future__ import annotations

import os
import sys
import threading
from types import ModuleType


def main() -> int:
    """Run TensorBoard with this program's arguments; what it says comes out on stdout."""
    os.dup2(sys.stdout.fileno(), sys.stderr.fileno())
    threading.Thread(target=_end_with_input, daemon=True).start()
    # TensorBoard takes its own small stand-in for TensorFlow when there is a module of this name.
    sys.modules["tensorboard.compat.notf"] = ModuleType("tensorboard.compat.notf")
    from tensorboard.main import run_main  # noqa: PLC0415 - after the module above

    run_main()
    return 0


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    # No state to put away: it only reads.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

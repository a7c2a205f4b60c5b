"""What people ask of a running training: files in the run's folder `control/`, removed when they are fulfilled.

Its place in the flow: `liftgate train --profile` and `--histograms` put a file there on each host;
the session looks now and then. It asks for nothing that changes what is trained.
"""

from __future__ import annotations

from pathlib import Path

PROFILE = "profile"
"""Its content is the number of steps that the profiler records."""

HISTOGRAMS = "histograms"

_USUAL_STEPS = 5
_MOST_STEPS = 1000


class Wishes:
    """The wishes to one process.

    Args:
        control: the folder; it need not exist.
    """

    def __init__(self, control: Path) -> None:
        self._control = control

    def profiled_steps(self) -> int:
        """Return how many steps the profiler is to record, 0 when nobody asked; what is no number is taken for 5."""
        try:
            text = (self._control / PROFILE).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return 0
        # A profile of many steps is larger than what a viewer opens, and slows the training.
        return max(1, min(int(text), _MOST_STEPS)) if text.isdecimal() else _USUAL_STEPS

    def wants_histograms(self) -> bool:
        """Return whether somebody asked for histograms of weights and gradients."""
        return (self._control / HISTOGRAMS).exists()

    def fulfil(self, wish: str) -> None:
        """Take the wish away."""
        (self._control / wish).unlink(missing_ok=True)

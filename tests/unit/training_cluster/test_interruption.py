"""A request to end: a flag that is looked at, and handlers that are put back."""

from __future__ import annotations

import os
import signal

from training_cluster.training.interruption import Interruption


def test_a_signal_raises_the_flag_a_second_one_changes_nothing_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    interruption = Interruption()
    with interruption.listening():
        assert not interruption.is_requested
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.is_requested
    assert signal.getsignal(signal.SIGTERM) is before

"""Races: several people act at once, each in a thread.

Its place in the flow: the races over one next release say who takes part and look at what came of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from artifact_sync.run_folder import RunFolder


def race(actions: list[Callable[[], object]]) -> list[object]:
    """Run the actions at once and return what each returned or raised, in their order."""
    outcomes: list[object] = [None] * len(actions)
    start = threading.Barrier(len(actions))

    def run(index: int) -> None:
        start.wait()
        try:
            outcomes[index] = actions[index]()
        except Exception as error:  # noqa: BLE001 - every outcome is looked at
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def promotion_of(site, run: RunFolder) -> Callable[[], object]:
    """Return the promotion of a run by somebody whose name tells which run it was."""
    return lambda: site.promote(run, by=f"rita-of-{run.run_id}")

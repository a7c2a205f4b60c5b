"""The checkpoints of a training on all its hosts: each has them all, so the loss of any host loses nothing.

Its place in the flow: the session saves and restores through here. The newest step that any worker has
wins and is handed to the others. A disk that is full ends nothing as long as one worker could write.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from artifact_sync.durable import TEMPORARY_PREFIX
from artifact_sync.errors import RefusedError
from training_cluster.training.checkpoint import Arrays, Checkpoint, CheckpointFolder
from training_cluster.training.meters import Costs

if TYPE_CHECKING:
    from training_cluster.training.workers import Workers

_TRIES = 2
_WANTED = 1 << 40


class Keeper:
    """Saves and restores on all workers together.

    Args:
        folder: this worker's checkpoints.
        workers: all must call each method at the same step.
        costs: counts the seconds.
        tell: is told what could not be written.
    """

    def __init__(
        self, folder: CheckpointFolder, *, workers: Workers, costs: Costs, tell: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._workers = workers
        self._costs = costs
        self._tell = tell
        self._failed = 0
        self._last: tuple[int, Mapping[str, Any]] | None = None
        self._is_writer = True

    def newest(self, blank: Callable[[], Arrays]) -> Checkpoint | None:
        """Return the newest checkpoint that any worker has; `blank` gives arrays of the right shapes."""
        # On a disk that all share, one of them writes.
        self._is_writer = not self._is_chiefs_disk() or self._workers.is_chief
        return self._agreed(self._folder.restore(), blank, wanted=-1)

    def best(self, step: int, blank: Callable[[], Arrays]) -> Checkpoint | None:
        """Return the checkpoint of the best `step`, or else the newest that any worker kept as the best."""
        return self._agreed(self._folder.best(), blank, wanted=step)

    def save(self, arrays: Callable[[], Arrays], *, step: int, state: Mapping[str, Any], is_best: bool = False) -> bool:
        """Write a checkpoint, unless the last one is the same; return False when twice in a row no worker could.

        Args:
            arrays: gives the whole state; reading variables that differ between workers takes all of them.
            step: steps done.
            state: what else is to be kept.
            is_best: whether this one is kept as the best.
        """
        if self._last == (step, state):
            return True
        with self._costs.checkpoint():
            whole = arrays()
            is_saved = self._is_writer and self._saved(whole, step=step, state=state, is_best=is_best)
        if self._workers.any(is_saved):
            self._last, self._failed = (step, dict(state)), 0
        else:
            self._failed += 1
        return self._failed < _TRIES

    def keep_best(self, step: int) -> None:
        """Give the checkpoint of `step` its second name, where it is, as a killed trainer may have left it without."""
        with suppress(OSError):
            if self._is_writer:
                self._folder.keep_best(step)

    def _saved(self, arrays: Arrays, *, step: int, state: Mapping[str, Any], is_best: bool) -> bool:
        try:
            self._folder.save(arrays, step=step, state=state)
            if is_best:
                self._folder.keep_best(step)
        except OSError as error:
            self._tell(
                f"the checkpoint of step {step} could not be written to {self._folder.path}: {error.strerror}. "
                "The one before stands, and the next is tried."
            )
            return False
        return True

    def _agreed(self, mine: Checkpoint | None, blank: Callable[[], Arrays], *, wanted: int) -> Checkpoint | None:
        rank = -1 if mine is None else mine.step + (_WANTED if mine.step == wanted else 0)
        ranks = self._workers.gather([rank])[:, 0]
        source = int(ranks.argmax())
        if ranks[source] < 0:
            return None
        if self._workers.count == 1:
            return mine
        own = mine if mine is not None and self._workers.index == source else None
        state = self._workers.text_of(source, json.dumps(dict(own.state)) if own else "")
        arrays = self._workers.arrays_of(source, _ordered(own.arrays, like=blank()) if own else blank())
        return Checkpoint(int(ranks[source]) % _WANTED, arrays, self._folder.binding, json.loads(state))

    def _is_chiefs_disk(self) -> bool:
        """Return whether this worker sees a file that the chief makes in the folder."""
        number = int(self._workers.gather([secrets.randbits(60)])[0, 0])
        mark = self._folder.path / f"{TEMPORARY_PREFIX}{number:x}"
        if self._workers.is_chief:
            with suppress(OSError):
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
        self._workers.gather([0])
        is_seen = mark.exists()
        self._workers.gather([0])
        if self._workers.is_chief:
            mark.unlink(missing_ok=True)
        return is_seen


def _ordered(arrays: Arrays, *, like: Arrays) -> Arrays:
    """Return the arrays in the order in which all workers hand them round."""
    if set(arrays) != set(like):
        raise RefusedError(
            "Resuming refused: the checkpoint has other variables than this training. The code has changed since; "
            "train under another run id."
        )
    return {name: arrays[name] for name in like}

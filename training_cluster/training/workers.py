"""The processes that train together: which strategy, who is the chief, what all must agree on.

Its place in the flow: the trainer asks here once. One device needs no strategy, several GPUs of a host
are mirrored, several hosts are named by TF_CONFIG as TensorFlow documents it (worker 0 is the chief).
Whatever needs all workers is asked by all of them at the same step.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from artifact_sync.errors import SettingsError
from training_cluster.cluster import PEER_LOST_EXIT_CODE, Spread
from training_cluster.training.failures import PeerLostError, first_cause

_JOIN_SECONDS = 600.0
_PIECES = (64, 16 * 1024, 1024 * 1024)


class Workers:
    """All processes of one training, seen from one of them.

    Attributes:
        strategy: TensorFlow's.
        count: how many there are.
        index: this one's number.
    """

    def __init__(self, strategy: tf.distribute.Strategy, *, count: int, index: int) -> None:
        self.strategy = strategy
        self.count = count
        self.index = index
        # Made once: a new function would be traced anew at each question.
        self._add = tf.function(self._add_over_replicas)

    @classmethod
    def join(cls, spread: Spread) -> Workers:
        """Make the strategy; with several workers it waits for the others. Call it before any other use of TensorFlow.

        Raises:
            SettingsError: TF_CONFIG is malformed, missing, or not for this spread.
            PeerLostError: the workers do not find each other.
        """
        count, index = _from_tf_config(os.environ.get("TF_CONFIG", ""), spread)
        if count > 1:
            with _waiting_for_others(count):
                return cls(_strategy_of_hosts(count), count=count, index=index)
        devices = tf.config.list_physical_devices("GPU")
        if spread == "device":
            tf.config.set_visible_devices(devices[:1], "GPU")
        elif len(devices) > 1:
            return cls(tf.distribute.MirroredStrategy(), count=1, index=0)
        return cls(tf.distribute.get_strategy(), count=1, index=0)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes charts and the export."""
        return self.index == 0

    def any(self, flag: bool) -> bool:
        """Return whether any worker says so."""
        return bool(self.gather([int(flag)]).any())

    def gather(self, numbers: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return every worker's numbers, int64 [count, n]."""
        everyone = np.zeros((self.count, len(numbers)), np.int64)
        everyone[self.index] = numbers
        return everyone if self.count == 1 else self._sum(everyone)

    def sums(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return the sums of all workers' arrays; these have the same shapes on each."""
        return {name: array if self.count == 1 else self._sum(array) for name, array in arrays.items()}

    def arrays_of(self, source: int, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return one worker's arrays on every worker, bit for bit; the others hand in arrays of the same shapes."""
        if self.count == 1:
            return dict(arrays)
        return {name: self._bits_of(source, array) for name, array in arrays.items()}

    def text_of(self, source: int, text: str) -> str:
        """Return one worker's text on every worker."""
        data = np.frombuffer(text.encode(), np.uint8)
        length = int(self.gather([len(data)])[source, 0])
        mine = data if self.index == source else np.zeros(length, np.uint8)
        return self.arrays_of(source, {"text": mine})["text"].tobytes().decode()

    def _bits_of(self, source: int, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # As whole numbers: adding zeros to floats would turn -0.0 into 0.0.
        data = np.asarray(array, order="C").tobytes()
        bits = np.zeros(-(-len(data) // 8), np.int64)
        if self.index == source:
            bits.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
        received = self._sum(bits).tobytes()[: len(data)]
        return np.frombuffer(received, array.dtype).reshape(array.shape)

    def _sum(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # In pieces of few sizes: TensorFlow makes a function for each.
        flat = array.reshape(-1)
        piece = next((size for size in _PIECES if size >= len(flat)), _PIECES[-1])
        sums = []
        for begin in range(0, len(flat), piece):
            part = flat[begin : begin + piece]
            padded = np.concatenate([part, np.zeros(piece - len(part), part.dtype)])
            sums.append(self._add(tf.constant(padded)).numpy()[: len(part)])
        return np.concatenate(sums).reshape(array.shape) if sums else array

    def _add_over_replicas(self, value: Any) -> Any:
        def reduce(value: Any) -> Any:
            context = tf.distribute.get_replica_context()
            is_first = context.replica_id_in_sync_group % (context.num_replicas_in_sync // self.count) == 0
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value * tf.cast(is_first, value.dtype))

        sums = self.strategy.run(reduce, args=(value,))
        return self.strategy.experimental_local_results(sums)[0]


def _strategy_of_hosts(count: int) -> tf.distribute.Strategy:
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        # Its port may be taken for a moment by the trainer before; its peers may be gone again.
        raise PeerLostError(
            f"Training not begun: this worker could not join the {count} of TF_CONFIG ({first_cause(str(error))}). "
            "Look whether its port is free; starting all again goes on."
        ) from error


@contextmanager
def _waiting_for_others(count: int) -> Iterator[None]:
    """End the process when the others do not come: TensorFlow itself would wait for an hour."""

    def give_up() -> None:
        sys.stderr.write(
            f"Training not begun: not all {count} workers of TF_CONFIG were there within {_JOIN_SECONDS:.0f} s. "
            "Look at the hosts that are missing; starting all again goes on.\n"
        )
        sys.stderr.flush()
        os._exit(PEER_LOST_EXIT_CODE)

    timer = threading.Timer(_JOIN_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _from_tf_config(text: str, spread: Spread) -> tuple[int, int]:
    if not text and spread == "hosts":
        raise SettingsError(
            "Training refused: it is to be spread over hosts, and TF_CONFIG names none. Let the cluster start it, "
            "or set TF_CONFIG on each host."
        )
    if not text:
        return 1, 0
    try:
        document = json.loads(text)
        count, index = len(document["cluster"]["worker"]), int(document["task"]["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"Training refused: TF_CONFIG is not of the form "
            f'{{"cluster": {{"worker": [...]}}, "task": {{"type": "worker", "index": 0}}}}: {error!r}.'
        ) from None
    if count > 1 and spread != "hosts":
        raise SettingsError(
            f"Training refused: it is to be spread over one {spread}, and TF_CONFIG names {count} workers. "
            "Spread it over hosts, or take TF_CONFIG away."
        )
    return count, index

"""What ends a training, in words that say what to do, and the exit code for the loss of another worker.

Its place in the flow: the execution of a training runs inside `explained`, which translates TensorFlow's
errors and the machine's. Errors of ours pass through.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import tensorflow as tf

from artifact_sync.errors import CapacityError, TrainingError
from training_cluster.cluster import PEER_LOST_EXIT_CODE
from training_cluster.config.training_config import TrainingConfig

_WHO = re.compile(r"(?:unhealthy[^\n]*\n|remote target )\S*/task:(\d+)")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PeerLostError(TrainingError):
    """Another worker ended, hangs or cannot be reached; starting all of them again goes on from the checkpoint."""

    exit_code: ClassVar[int] = PEER_LOST_EXIT_CODE


@contextmanager
def explained(config: TrainingConfig, *, workers: int) -> Iterator[None]:
    """Translate what TensorFlow and the machine raise inside.

    Args:
        config: names the keys that would have to be lower.
        workers: how many processes train together.

    Raises:
        TrainingError: out of memory.
        PeerLostError: another worker is lost.
        CapacityError: the disk is full.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise TrainingError(_out_of_memory(config, str(error))) from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise CapacityError(
            f"Training stopped: {error.strerror} at {error.filename or 'the run folder'}. Make room and start the run "
            "again; it goes on from its newest checkpoint."
        ) from error
    except tf.errors.OpError as error:
        if workers == 1 or isinstance(error, tf.errors.InvalidArgumentError):
            raise
        raise PeerLostError(
            f"Training interrupted: another of the {workers} workers ended, hangs or cannot be reached "
            f"({first_cause(str(error))}). The newest checkpoint stands; starting all of them again goes on from it."
        ) from error


def no_number(what: str, value: float, *, step: int, total_steps: int) -> str:
    """Return what is to be said of a training whose loss or weights are no numbers any more."""
    return (
        f"Training stopped: {what} is {value} after step {step} of {total_steps}, so the weights "
        "are worthless and no candidate is written. Lower optimization.learning_rate or add warm-up, "
        "and train under another run id."
    )


def _out_of_memory(config: TrainingConfig, text: str) -> str:
    batch_size, shuffle = config.optimization.batch_size, config.data.shuffle_megabytes
    if "GPU" in text:
        return (
            f"Training stopped: a GPU has too little memory for batches of {batch_size} examples over all devices. "
            "Lower optimization.batch_size, set execution.mixed_precision, or take more devices, "
            "and train under another run id."
        )
    return (
        f"Training stopped: this machine has too little memory for batches of {batch_size} examples and "
        f"{shuffle} MB of examples to draw from. Lower data.shuffle_megabytes or optimization.batch_size, "
        "and train under another run id."
    )


def first_cause(text: str) -> str:
    """Return the line of TensorFlow's account that names the cause; the first lines name nodes of the graph."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "aborted by" in line or "unhealthy" in line or "peer" in line]
    who = _WHO.search(text)
    return (f"worker {who[1]}: " if who else "") + (named or lines or ["no reason given"])[0][:300]

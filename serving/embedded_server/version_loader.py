"""How a version gets into memory: session, batching, warm-up, and a note in the metrics.

Its place in the flow: the lifecycle calls `load` in its loading threads, once for each attempt.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from serving.embedded_server.batching import BatchingParameters, read_batching_parameters, read_model_parameters
from serving.embedded_server.catalogue import LoadedModel, ModelVersion
from serving.embedded_server.executor import open_model
from serving.embedded_server.flags import Flags
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.priority import at_low_priority
from serving.embedded_server.session import load_session, start_threads
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.embedded_server.warm_up import warm_up
from serving.embedded_server.worker_pool import WorkerPool


class VersionLoader:
    """Loads versions as the flags say; `start` comes before the first, `stop` after the last is closed.

    Raises:
        StatusError: the flags contradict each other, or the batching file is refused.
    """

    def __init__(self, flags: Flags, *, metrics: Metrics) -> None:
        self._flags = flags
        self._metrics = metrics
        self._batching = _batching(flags)
        self._pool = WorkerPool(self._batching.num_batch_threads if self._batching else 4 * cpu_count())
        self._intra_op_threads, self._inter_op_threads = _threads(flags)
        # Whoever asks for operations side by side does not want a run to stay in one thread.
        self._is_in_callers_thread = not (flags.tensorflow_inter_op_parallelism or flags.tensorflow_session_parallelism)

    def start(self) -> None:
        """Start TensorFlow's threads and our own, not at the priority of whatever load comes first."""
        start = partial(start_threads, intra_op_threads=self._intra_op_threads, inter_op_threads=self._inter_op_threads)
        if self._is_in_callers_thread:
            # Then TensorFlow's own threads do little else than restore variables while users wait for answers.
            at_low_priority(start)
        else:
            start()
        self._pool.start()

    def stop(self) -> None:
        """End our threads."""
        self._pool.stop()

    def load(self, entry: ModelVersion) -> LoadedModel:
        """Load and warm up a version.

        Raises:
            StatusError: it does not load, or a warm-up request fails.
        """
        began, status = time.perf_counter(), Code.UNKNOWN
        try:
            model = self._load(entry)
            status = Code.OK
        except StatusError as error:
            status = error.code
            raise
        finally:
            self._metrics.load(
                model=entry.model,
                version=entry.version,
                path=str(entry.path),
                status=status,
                microseconds=(time.perf_counter() - began) * 1e6,
            )
        return model

    def _load(self, entry: ModelVersion) -> LoadedModel:
        flags = self._flags
        batching = read_model_parameters(entry.path) if flags.enable_per_model_batching_parameters else self._batching
        session = load_session(
            entry.path,
            tags=tuple(flags.saved_model_tags.split(",")),
            intra_op_threads=self._intra_op_threads,
            inter_op_threads=self._inter_op_threads,
            is_in_callers_thread=self._is_in_callers_thread,
        )
        opened = partial(
            open_model, session, pool=self._pool, metrics=self._metrics, model=entry.model, version=entry.version
        )
        if flags.enable_model_warmup:
            try:
                warm_up(
                    # Not in batches: first runs take long, and the threads of the batches have users waiting.
                    opened(batching=None),
                    entry.path,
                    iterations=flags.num_request_iterations_for_warmup,
                    is_method_name_checked=flags.enable_signature_method_name_check,
                    metrics=self._metrics,
                )
            except BaseException:
                session.close()
                raise
        return opened(batching=batching)


def cpu_count() -> int:
    """Return the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batching(flags: Flags) -> BatchingParameters | None:
    if not flags.enable_batching:
        if flags.batching_parameters_file:
            raise invalid_argument(
                "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
            )
        return None
    if not flags.batching_parameters_file:
        return BatchingParameters(num_batch_threads=cpu_count())
    return read_batching_parameters(Path(flags.batching_parameters_file))


def _threads(flags: Flags) -> tuple[int, int]:
    """Return the threads inside an operation, and the operations at once in TensorFlow's own pool.

    One thread inside an operation: requests run side by side anyway. For a small network two of them cost three
    to five times the CPU of one, spent on handing work over, and MobileNetV2 answers a single photo sooner with
    one (docs/performance.md).
    """
    both = flags.tensorflow_session_parallelism
    intra, inter = flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism
    return intra or both or 1, inter or both or cpu_count()

"""What models on a server answer to the frozen holdout, and how fast.

Its place in the flow: validate.py asks the throw-away server of smoke.py through here; candidate
and champion get the same pixels in the same minutes, by the path that users' photos take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from artifact_sync.clock import Clock
from artifact_sync.errors import ModelServerError, RefusedError
from artifact_sync.records import InputContract
from serving.model_server import ModelServer
from validation.photos.holdout import Holdout, PhotoDecoder
from validation.reports.report import LatencyMs

Progress = Callable[[int, int], None]
"""Told how many of how many photos are answered."""

_PREDICT_TIMEOUT_SECONDS = 120.0
_WARM_UP_REQUESTS = 5


@dataclass(frozen=True)
class Subject:
    """One model on the server: its name there, its labels in the order of its scores, its input."""

    name: str
    labels: tuple[str, ...]
    contract: InputContract


def label_columns(labels: Sequence[str], *, holdout_labels: Sequence[str], name: str) -> NDArray[np.int64]:
    """Return for each label of the holdout the column of a model's scores that is its own.

    Raises:
        RefusedError: the model's labels are not the holdout's, in whatever order.
    """
    missing = sorted(set(holdout_labels) - set(labels))
    unknown = sorted(set(labels) - set(holdout_labels))
    if missing or unknown or len(set(labels)) != len(labels):
        raise RefusedError(
            f"Validation refused: the labels of the {name} are not the holdout's. "
            f"It does not know: {', '.join(missing) or 'none'}. The holdout does not know: "
            f"{', '.join(unknown) or 'none'}. Train with the holdout's labels, or freeze a holdout with the model's."
        )
    return np.array([labels.index(label) for label in holdout_labels], dtype=np.int64)


def answer_holdout(
    server: ModelServer,
    subjects: Sequence[Subject],
    *,
    holdout: Holdout,
    decoder: PhotoDecoder,
    batch_size: int,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return each subject's scores, float32 [n, classes], rows and columns in the holdout's order.

    Raises:
        RefusedError: a subject's labels are not the holdout's.
        ModelServerError: a prediction failed or has the wrong shape.
        PhotoError: a photo of the holdout is refused by the photo contract.
    """
    columns = {s.name: label_columns(s.labels, holdout_labels=holdout.record.labels, name=s.name) for s in subjects}
    rows: dict[str, list[NDArray[np.float32]]] = {subject.name: [] for subject in subjects}
    total, done = len(holdout.record.items) * len(subjects), 0
    for contract, sharing in groupby(sorted(subjects, key=_contract_key), key=lambda s: s.contract):
        same_input = list(sharing)
        for pixels in holdout.pixel_batches(contract, decoder=decoder, batch_size=batch_size):
            for subject in same_input:
                scores = _ask(server, subject, pixels)
                rows[subject.name].append(scores[:, columns[subject.name]])
                done += len(pixels)
                if progress is not None:
                    progress(done, total)
    return {name: np.concatenate(batches) for name, batches in rows.items()}


def measure_latency(
    server: ModelServer,
    subjects: Sequence[Subject],
    *,
    holdout: Holdout,
    decoder: PhotoDecoder,
    sample: int,
    clock: Clock,
) -> dict[str, LatencyMs]:
    """Return the time of a request with one photo; the subjects take turns, so that noise meets all alike."""
    pixels = {s.name: next(holdout.pixel_batches(s.contract, decoder=decoder, batch_size=32)) for s in subjects}
    seconds: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for turn in range(_WARM_UP_REQUESTS + sample):
        for subject in subjects:
            batch = pixels[subject.name]
            one = batch[turn % len(batch)][np.newaxis]
            started = clock.monotonic()
            _ask(server, subject, one)
            seconds[subject.name].append(clock.monotonic() - started)
    return {name: _percentiles(times[_WARM_UP_REQUESTS:]) for name, times in seconds.items()}


def is_constant(scores: NDArray[np.float32]) -> bool:
    """Return whether all photos got the very same scores, so that the model does not look at them."""
    return len(scores) > 1 and bool(np.isfinite(scores).all()) and bool((scores == scores[0]).all())


def _ask(server: ModelServer, subject: Subject, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    scores = server.predict(subject.name, pixels, timeout_seconds=_PREDICT_TIMEOUT_SECONDS).scores
    expected = (len(pixels), len(subject.labels))
    if scores.shape != expected:
        raise ModelServerError(
            f"The {subject.name} answered with scores of shape {scores.shape} where {expected} was expected: "
            "one row a photo, one column a label. Export it again."
        )
    return scores


def _percentiles(seconds: Sequence[float]) -> LatencyMs:
    p50, p95, p99 = (round(float(value) * 1000, 3) for value in np.percentile(seconds, [50, 95, 99]))
    return LatencyMs(p50=p50, p95=p95, p99=p99)


def _contract_key(subject: Subject) -> tuple[int, int, int]:
    return (subject.contract.height, subject.contract.width, subject.contract.channels)

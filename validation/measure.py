"""Measure candidate and champion side by side on the throw-away server.

Its place in the flow: validate.py calls it once the run may be judged at all; what it returns are
the figures of the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact_sync.clock import Clock
from artifact_sync.errors import ModelServerError, RefusedError
from artifact_sync.records import GoldenExamples, InputContract, Manifest
from validation.answers import Answers
from validation.comparison import compare_counts
from validation.evaluate import Progress, Subject, answer_holdout, is_constant, measure_latency
from validation.holdout import Holdout, PhotoDecoder
from validation.metrics import calibration_error, confusion_matrix, log_loss, macro_f1, predicted_classes
from validation.proportions import proportion_interval
from validation.report import LatencyMs, ModelMeasurements
from validation.settings import ValidationSettings
from validation.smoke import SmokeServer, replay_golden_examples, throwaway_server

CANDIDATE, CHAMPION = "candidate", "champion"
_GREATEST_GOLDEN_DIFFERENCE = 1e9
"""What stands in the record for an infinite difference, which JSON cannot hold."""


@dataclass(frozen=True)
class ModelOnDisk:
    """An export whose files match its manifest, and how to talk to it."""

    directory: Path
    manifest: Manifest
    labels: tuple[str, ...]
    contract: InputContract
    golden: GoldenExamples | None


def measure(
    candidate: ModelOnDisk,
    *,
    champion: ModelOnDisk | None,
    holdout: Holdout,
    decoder: PhotoDecoder,
    clock: Clock,
    settings: ValidationSettings,
    progress: Progress | None,
) -> dict[str, object]:
    """Return the report's measured fields.

    Raises:
        RefusedError: the candidate does not load, or does not answer as its contract says.
        ModelServerError: the champion does not.
    """
    # The champion first: if it fails, that is not the candidate's doing.
    models = {CANDIDATE: candidate} if champion is None else {CHAMPION: champion, CANDIDATE: candidate}
    subjects = [Subject(name=name, labels=model.labels, contract=model.contract) for name, model in models.items()]
    with throwaway_server(load_timeout_seconds=settings.load_timeout_seconds, clock=clock) as smoke:
        loads = {name: _load(smoke, name, model) for name, model in models.items()}
        scores = answer_holdout(
            smoke.server,
            subjects,
            holdout=holdout,
            decoder=decoder,
            batch_size=settings.batch_size,
            progress=progress,
        )
        latencies = measure_latency(
            smoke.server, subjects, holdout=holdout, decoder=decoder, sample=settings.latency_sample, clock=clock
        )
    measured = {
        name: _measurements(model, loads[name], scores=scores[name], latency_ms=latencies[name], truth=holdout.truth)
        for name, model in models.items()
    }
    answers = Answers(
        labels=holdout.record.labels,
        items=holdout.record.items,
        truth=holdout.truth,
        candidate=scores[CANDIDATE],
        champion=scores.get(CHAMPION),
    )
    return {
        **compare_counts(answers),
        "holdout_sha256": holdout.sha256,
        "candidate": measured[CANDIDATE],
        "champion": measured.get(CHAMPION),
    }


@dataclass(frozen=True)
class _Load:
    """How loading went: seconds, and the golden examples' largest difference where there are any."""

    seconds: float
    golden_difference: float | None


def _load(smoke: SmokeServer, name: str, model: ModelOnDisk) -> _Load:
    try:
        seconds = smoke.load(name, model.directory)
        # A server may call a model available that cannot answer, so one question belongs to loading.
        blank = np.zeros((1, model.contract.height, model.contract.width, model.contract.channels), dtype=np.uint8)
        smoke.server.predict(name, blank, timeout_seconds=smoke.load_timeout_seconds)
        golden = model.golden
        difference = None if golden is None else replay_golden_examples(smoke.server, name, golden)
    except ModelServerError as error:
        if name != CANDIDATE:
            raise
        raise RefusedError(f"Validation refused: the candidate does not work on a model server. {error}") from None
    return _Load(seconds=seconds, golden_difference=difference)


def _measurements(
    model: ModelOnDisk, load: _Load, *, scores: NDArray[np.float32], latency_ms: LatencyMs, truth: NDArray[np.int64]
) -> ModelMeasurements:
    predicted = predicted_classes(scores)
    right = int((predicted == truth).sum())
    confusion = confusion_matrix(truth, predicted, classes=scores.shape[1])
    difference = load.golden_difference
    return ModelMeasurements(
        manifest_sha256=model.manifest.sha256,
        size_bytes=model.manifest.size_bytes,
        load_seconds=round(load.seconds, 3),
        latency_ms=latency_ms,
        right=right,
        accuracy_interval=proportion_interval(right, len(truth)),
        macro_f1=macro_f1(confusion),
        log_loss=log_loss(truth, scores),
        calibration_error=calibration_error(truth, scores),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        non_finite_photos=int((~np.isfinite(scores).all(axis=1)).sum()),
        is_constant=is_constant(scores),
        golden_difference=None if difference is None else min(difference, _GREATEST_GOLDEN_DIFFERENCE),
        golden_tolerance=None if model.golden is None else model.golden.tolerance,
    )

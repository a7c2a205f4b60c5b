"""Measure candidate and champion side by side on the throw-away server.

Its place in the flow: validate.py calls it once the case may be judged at all. It brings back what both
models answered and what they cost; which of that anybody gets to see is decided later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact_sync.clock import Clock
from artifact_sync.errors import ModelServerError, RefusedError
from validation.answers import Answers
from validation.case import Case, ModelOnDisk
from validation.checks.policy import Policy
from validation.evaluate import Progress, Subject, answer_holdout, measure_latency
from validation.photos.holdout import Holdout, PhotoDecoder
from validation.programs.isolation import Isolation
from validation.programs.smoke import SmokeServer, replay_golden_examples, throwaway_server
from validation.reports.comparison import measurements_of
from validation.reports.report import LatencyMs, ModelMeasurements
from validation.settings import ValidationSettings

CANDIDATE, CHAMPION = "candidate", "champion"
_GREATEST_GOLDEN_DIFFERENCE = 1e9
"""What stands in the record for an infinite difference, which JSON cannot hold."""


@dataclass(frozen=True)
class Cost:
    """What one model takes on the server, whatever it answers.

    Attributes:
        model: the export.
        load_seconds: until it was available.
        latency_ms: of requests with one photo.
        golden_difference: the largest distance from the scores that training measured; None without examples.
        golden_drift: the largest distance between two replays; None without examples.
    """

    model: ModelOnDisk
    load_seconds: float
    latency_ms: LatencyMs
    golden_difference: float | None
    golden_drift: float | None

    def measurements(
        self, truth: NDArray[np.int64], scores: NDArray[np.float32], *, holdout: Holdout, policy: Policy
    ) -> ModelMeasurements:
        """Return the report's part about this model, of the photos whose labels and scores are given."""
        golden = self.model.golden
        return ModelMeasurements.model_validate(
            {
                **measurements_of(truth, scores, labels=holdout.record.labels, policy=policy),
                "manifest_sha256": self.model.manifest.sha256,
                "size_bytes": self.model.manifest.size_bytes,
                "load_seconds": round(self.load_seconds, 3),
                "latency_ms": self.latency_ms,
                "golden_difference": _bounded(self.golden_difference),
                "golden_drift": _bounded(self.golden_drift),
                "golden_tolerance": None if golden is None else golden.tolerance,
            }
        )


@dataclass(frozen=True)
class Measured:
    """Everything that the server said and took.

    Attributes:
        answers: to every photo of the holdout.
        candidate: what the candidate costs.
        champion: what the champion costs; None for a first model.
        memory_bytes: the most that the server took while it held both; None where the system does not say.
    """

    answers: Answers
    candidate: Cost
    champion: Cost | None
    memory_bytes: int | None


def measure(
    case: Case,
    *,
    decoder: PhotoDecoder,
    isolation: Isolation,
    clock: Clock,
    settings: ValidationSettings,
    progress: Progress | None,
) -> Measured:
    """Ask both models about every photo.

    Raises:
        RefusedError: the candidate does not load, or does not answer as its contract says.
        ModelServerError: the champion does not.
    """
    # The champion first: if it fails, that is not the candidate's doing.
    champion = case.champion_model
    models = {CANDIDATE: case.candidate} if champion is None else {CHAMPION: champion, CANDIDATE: case.candidate}
    subjects = [Subject(name=name, labels=model.labels, contract=model.contract) for name, model in models.items()]
    holdout = case.holdout
    with throwaway_server(
        isolation=isolation, load_timeout_seconds=settings.load_timeout_seconds, clock=clock
    ) as smoke:
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
        memory_bytes = smoke.peak_memory_bytes()
    costs = {name: _cost(model, loads[name], latencies[name]) for name, model in models.items()}
    return Measured(
        answers=_answers(holdout, scores),
        candidate=costs[CANDIDATE],
        champion=costs.get(CHAMPION),
        memory_bytes=memory_bytes,
    )


def _answers(holdout: Holdout, scores: Mapping[str, NDArray[np.float32]]) -> Answers:
    return Answers(
        labels=holdout.record.labels,
        items=holdout.record.items,
        truth=holdout.truth,
        candidate=scores[CANDIDATE],
        champion=scores.get(CHAMPION),
    )


@dataclass(frozen=True)
class _Load:
    """How loading went: seconds, and what two replays of the golden examples gave where there are any."""

    seconds: float
    golden_difference: float | None
    golden_drift: float | None


def _load(smoke: SmokeServer, name: str, model: ModelOnDisk) -> _Load:
    try:
        seconds = smoke.load(name, model.directory)
        # A server may call a model available that cannot answer, so one question belongs to loading.
        blank = np.zeros((1, model.contract.height, model.contract.width, model.contract.channels), dtype=np.uint8)
        smoke.server.predict(name, blank, timeout_seconds=smoke.load_timeout_seconds)
        if model.golden is None:
            return _Load(seconds, None, None)
        difference, drift = replay_golden_examples(smoke.server, name, model.golden)
        return _Load(seconds, difference, drift)
    except ModelServerError as error:
        if name != CANDIDATE:
            raise
        raise RefusedError(f"Validation refused: the candidate does not work on a model server. {error}") from None


def _cost(model: ModelOnDisk, load: _Load, latency_ms: LatencyMs) -> Cost:
    return Cost(
        model=model,
        load_seconds=load.seconds,
        latency_ms=latency_ms,
        golden_difference=load.golden_difference,
        golden_drift=load.golden_drift,
    )


def _bounded(difference: float | None) -> float | None:
    return None if difference is None else min(difference, _GREATEST_GOLDEN_DIFFERENCE)

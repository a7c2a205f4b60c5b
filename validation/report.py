"""The measurements of one candidate, and of its champion on the same photos, as a record.

Its place in the flow: validate.py fills it from evaluate.py's answers, gate.py judges it without
looking at anything else, report_page.py shows it to people, and its digest stands in the verdict.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from artifact_sync.canonical import FrozenModel, Record, Sha256, Timestamp
from artifact_sync.records import Lineage, ModelName, RunId
from validation.holdout import Holdout
from validation.metrics import NO_ANSWER, predicted_classes
from validation.proportions import proportion_interval
from validation.statistics import Count, PairedCounts, difference_interval
from validation.verdict import ChampionReference

Seconds = Annotated[float, Field(ge=0)]
Interval = tuple[float, float]
"""Lower and upper end of a two-sided 95 % interval."""

MAX_CHANGED_PHOTOS = 200
"""How many fixed and how many broken photos a report names; the counts are always whole."""


class LatencyMs(FrozenModel):
    """Percentiles of the time of one request with one photo, in milliseconds."""

    p50: Seconds
    p95: Seconds
    p99: Seconds


class ModelMeasurements(FrozenModel):
    """One model's answers to the whole holdout, and its weight.

    `confusion` has a row for each true class and, after the classes' columns, one for photos
    without a finite answer. `golden_difference` is the largest distance of a golden example's score
    from the one measured at training; None where the export holds none.
    """

    manifest_sha256: Sha256
    size_bytes: Count
    load_seconds: Seconds
    latency_ms: LatencyMs
    right: Count
    accuracy_interval: Interval
    macro_f1: float
    log_loss: float | None
    calibration_error: float | None
    confusion: tuple[tuple[Count, ...], ...]
    non_finite_photos: Count
    is_constant: bool
    golden_difference: float | None
    golden_tolerance: float | None


class ClassMeasurements(FrozenModel):
    """One class: how many photos, how often each model is right, and what changed between them."""

    label: str
    n: Count
    candidate_right: Count
    recall_interval: Interval
    paired: PairedCounts | None
    gain_interval: Interval | None


class ChangedPhoto(FrozenModel):
    """One photo that one model answers rightly and the other wrongly; None stands for no finite answer."""

    sha256: Sha256
    label: str
    candidate_answer: str | None
    champion_answer: str | None


class Report(Record):
    """`report.json`: everything the verdict rests on, in figures.

    `champion` and all paired figures are None for a first model. `training_photos_checked` is the
    number of training photos whose digests were compared with the holdout's, None when they were
    not at hand.
    """

    schema_name: ClassVar[str] = "liftgate.report/1"
    run_id: RunId
    model: ModelName
    lineage: Lineage
    labels: tuple[str, ...]
    photos: Annotated[int, Field(ge=1)]
    holdout_sha256: Sha256
    candidate: ModelMeasurements
    champion: ModelMeasurements | None
    champion_reference: ChampionReference | None
    paired: PairedCounts | None
    gain_interval: Interval | None
    classes: tuple[ClassMeasurements, ...]
    fixed: tuple[ChangedPhoto, ...]
    broken: tuple[ChangedPhoto, ...]
    training_photos_checked: Count | None
    measured_at: Timestamp

    @property
    def candidate_accuracy(self) -> float:
        """The candidate's share of right answers."""
        return self.candidate.right / self.photos

    @property
    def champion_accuracy(self) -> float | None:
        """The champion's share of right answers."""
        return None if self.champion is None else self.champion.right / self.photos


def compare(
    holdout: Holdout, *, candidate: NDArray[np.float32], champion: NDArray[np.float32] | None
) -> dict[str, object]:
    """Return the report's fields that come from both models' scores [n, classes], in the holdout's order."""
    truth = holdout.truth
    candidate_answers = predicted_classes(candidate)
    champion_answers = None if champion is None else predicted_classes(champion)
    candidate_right = candidate_answers == truth
    champion_right = None if champion_answers is None else champion_answers == truth
    paired = None if champion_right is None else _count(candidate_right, champion_right)
    return {
        "labels": holdout.record.labels,
        "photos": len(truth),
        "holdout_sha256": holdout.sha256,
        "paired": paired,
        "gain_interval": None if paired is None else difference_interval(paired),
        "classes": tuple(
            _measure_class(label, truth == index, candidate_right, champion_right)
            for index, label in enumerate(holdout.record.labels)
        ),
        "fixed": _changed(holdout, candidate_right, champion_right, candidate_answers, champion_answers, is_fixed=True),
        "broken": _changed(
            holdout, candidate_right, champion_right, candidate_answers, champion_answers, is_fixed=False
        ),
    }


def _count(candidate_right: NDArray[np.bool_], champion_right: NDArray[np.bool_]) -> PairedCounts:
    return PairedCounts(
        n=len(candidate_right),
        both_right=int((candidate_right & champion_right).sum()),
        candidate_only=int((candidate_right & ~champion_right).sum()),
        champion_only=int((~candidate_right & champion_right).sum()),
    )


def _measure_class(
    label: str,
    members: NDArray[np.bool_],
    candidate_right: NDArray[np.bool_],
    champion_right: NDArray[np.bool_] | None,
) -> ClassMeasurements:
    right, n = int(candidate_right[members].sum()), int(members.sum())
    paired = None if champion_right is None else _count(candidate_right[members], champion_right[members])
    return ClassMeasurements(
        label=label,
        n=n,
        candidate_right=right,
        recall_interval=proportion_interval(right, n),
        paired=paired,
        gain_interval=None if paired is None else difference_interval(paired),
    )


def _changed(
    holdout: Holdout,
    candidate_right: NDArray[np.bool_],
    champion_right: NDArray[np.bool_] | None,
    candidate_answers: NDArray[np.int64],
    champion_answers: NDArray[np.int64] | None,
    *,
    is_fixed: bool,
) -> tuple[ChangedPhoto, ...]:
    if champion_right is None or champion_answers is None:
        return ()
    changed = candidate_right & ~champion_right if is_fixed else champion_right & ~candidate_right
    # The items are sorted by digest, so the first ones are as good as drawn by lot.
    return tuple(
        ChangedPhoto(
            sha256=holdout.record.items[index].sha256,
            label=holdout.record.items[index].label,
            candidate_answer=_name(holdout, candidate_answers[index]),
            champion_answer=_name(holdout, champion_answers[index]),
        )
        for index in np.flatnonzero(changed)[:MAX_CHANGED_PHOTOS]
    )


def _name(holdout: Holdout, answer: np.int64) -> str | None:
    return None if answer == NO_ANSWER else holdout.record.labels[int(answer)]

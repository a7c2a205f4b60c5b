"""The measurements of one candidate, and of its champion on the same photos, as a record.

Its place in the flow: measure.py fills it, with comparison.py's figures of the photos that may be
shown; gate.py reads the measurements from it, report_page.py shows it to people, and its digest
stands in the verdict.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from artifact_sync.canonical import FrozenModel, Record, Sha256, Timestamp
from artifact_sync.records import Lineage, ModelName, RunId
from validation.checks.verdict import ChampionReference
from validation.figures.statistics import Count, PairedCounts

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


class CalibrationBin(FrozenModel):
    """Photos whose best score lies between `low` and `high`: their number, mean score and share of right answers."""

    low: float
    high: float
    n: Count
    confidence: float
    accuracy: float


class RiskPoint(FrozenModel):
    """Of the `coverage` (share) of photos with the highest best scores, the share `risk` is answered wrongly."""

    coverage: float
    risk: float


class ModelMeasurements(FrozenModel):
    """One model's answers to the photos that the report shows, and its weight.

    `confusion` has a row for each true class and, after the classes' columns, one for photos
    without a finite answer. `golden_difference` is the largest distance of a golden example's score
    from the one measured at training; None where the export holds none. `golden_drift` is the
    largest distance between two replays on one server. `top_k_accuracy` and `mean_cost` are None
    unless the policy asks for them.
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
    golden_drift: float | None = None
    balanced_accuracy: float | None = None
    top_k_accuracy: float | None = None
    mean_cost: float | None = None
    calibration: tuple[CalibrationBin, ...] = ()
    risk_coverage: tuple[RiskPoint, ...] = ()


class ClassMeasurements(FrozenModel):
    """One class: how many photos, how often each model is right, and what changed between them."""

    label: str
    n: Count
    candidate_right: Count
    recall_interval: Interval
    paired: PairedCounts | None
    gain_interval: Interval | None


class SliceMeasurements(FrozenModel):
    """One value of one slice column of the holdout, such as device = "phone": as ClassMeasurements."""

    column: str
    value: str
    n: Count
    candidate_right: Count
    accuracy_interval: Interval
    paired: PairedCounts | None
    gain_interval: Interval | None


class MetricComparison(FrozenModel):
    """One metric of both models; `gain` is positive where the candidate is better, whatever the metric's direction.

    `interval` is the 95 % BCa bootstrap interval of the gain; None without a champion.
    """

    name: str
    candidate: float
    champion: float | None
    gain: float | None
    interval: Interval | None


class SuspectLabel(FrozenModel):
    """A photo whose label both models dispute with one voice: `answer` is what they say, with their scores.

    `method` is "agreement" (both models are confident) or "cleanlab".
    """

    sha256: Sha256
    label: str
    answer: str
    candidate_score: float
    champion_score: float | None
    method: str


class NearDuplicate(FrozenModel):
    """A photo of the holdout that looks like a training photo; `distance` is in bits of 128."""

    sha256: Sha256
    label: str
    training_sha256: Sha256
    distance: Count


class LabelOrder(FrozenModel):
    """The reading of the candidate's columns that fits best, where it is not the one that run.json states.

    `accuracy` is what it would reach under `labels`, the names in the order of its columns.
    """

    labels: tuple[str, ...]
    accuracy: float


class TrialRecord(FrozenModel):
    """What happened when the candidate was loaded and asked in a child process without a network.

    `isolation` says in a few words what held the child; `memory_bytes` is the most that it took.
    """

    isolation: str
    seconds: Seconds
    cpu_seconds: Seconds
    memory_bytes: Count


class ChangedPhoto(FrozenModel):
    """One photo that one model answers rightly and the other wrongly; None stands for no finite answer."""

    sha256: Sha256
    label: str
    candidate_answer: str | None
    champion_answer: str | None


class Report(Record):
    """`report.json`: everything the verdict rests on, in figures.

    Attributes:
        scope: "open": all figures are of the open photos, since the sealed ones decide again; "all":
            the holdout decides nothing any more, and the figures are of all its photos.
        photos: how many photos the figures are of.
        sealed_photos: how many more the holdout has.
        champion: None, as are all paired figures, for a first model.
        training_photos_checked: training photos whose digests were compared with the holdout's; None
            when they were not at hand.
        near_duplicates: photos left out of all figures; None when there was nothing to compare with. While the
            sealed photos are to decide again, only open ones are named.
        sealed_near_duplicates: how many sealed photos are left out, too.
        memory_bytes: the most memory that the server took while it held both models and answered.
    """

    schema_name: ClassVar[str] = "liftgate.report/2"
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
    scope: Literal["open", "all"] = "all"
    sealed_photos: Count = 0
    slices: tuple[SliceMeasurements, ...] = ()
    metrics: tuple[MetricComparison, ...] = ()
    suspects: tuple[SuspectLabel, ...] = ()
    near_duplicates: tuple[NearDuplicate, ...] | None = None
    sealed_near_duplicates: Count = 0
    label_order: LabelOrder | None = None
    memory_bytes: Count | None = None
    trial: TrialRecord | None = None
    measured_at: Timestamp

    @property
    def candidate_accuracy(self) -> float:
        """The candidate's share of right answers."""
        return self.candidate.right / self.photos

    @property
    def champion_accuracy(self) -> float | None:
        """The champion's share of right answers."""
        return None if self.champion is None else self.champion.right / self.photos

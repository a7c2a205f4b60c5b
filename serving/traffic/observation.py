"""The counters of one front end as a record: what each version answered, and how its shadow compared.

Its place in the flow: recorder.py counts and fills it, the front end serves it as JSON at /traffic,
the agent takes differences between two of them and judges the canary by those.

Every counter is cumulative since `started_at`. A reader takes differences; when `started_at` is
another than before, or a counter went down, the front end was started anew and counts from zero.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from artifact_sync.canonical import FrozenModel, Record, Timestamp
from artifact_sync.records import ModelName, Number

LATENCY_BOUNDS_MS = (
    1.0,
    2.0,
    3.0,
    5.0,
    8.0,
    13.0,
    20.0,
    35.0,
    60.0,
    100.0,
    170.0,
    300.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
)
"""Upper bounds of the latency buckets in milliseconds, each included; one more bucket holds what is above."""

Count = Annotated[int, Field(ge=0)]
Distance = Annotated[float, Field(ge=0)]


class VersionTraffic(FrozenModel):
    """What one version was asked by people's requests.

    Args:
        version: the version, as the model server named it in its answer; for a question without an
            answer the version that the release gave to the label that was asked.
        requests: questions to it, answered or not.
        errors: of those, the ones without a usable answer: refused, late, or scores that are none.
        fallbacks: people who should have had this version and got the stable one without asking, because the
            server had no such label at that moment or too many waited for it. They are in neither of the above.
        latency_counts: answered questions by how long the model server took, one count for each bound of
            LATENCY_BOUNDS_MS (not cumulative) and one for what is above; their sum is requests - errors.
        latency_sum_ms: the sum of the same times in milliseconds.
        top_counts: answered questions by the label that won; labels that never won are not listed.
    """

    version: Number
    requests: Count
    errors: Count
    fallbacks: Count = 0
    latency_counts: tuple[Count, ...]
    latency_sum_ms: Annotated[float, Field(ge=0)] = 0.0
    top_counts: dict[str, Count]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        answered = self.requests - self.errors
        if len(self.latency_counts) != len(LATENCY_BOUNDS_MS) + 1:
            raise ValueError(f"latency_counts needs {len(LATENCY_BOUNDS_MS) + 1} counts")
        if sum(self.latency_counts) != answered or sum(self.top_counts.values()) != answered:
            raise ValueError("latency_counts and top_counts must each add up to requests - errors")
        return self


class ShadowTraffic(FrozenModel):
    """How copies of people's requests were answered by a version that nobody sees.

    Args:
        version: the version that answered the copies, as the model server named it; for a copy without an
            answer the version that the release gave to the shadow.
        compared: copies that were answered and compared with the answer of the stable version that a person got.
        agreed: of those, the ones where the same label won.
        score_distance_sum: sum over `compared` of the total variation distance, 0 (same) to 1, over the labels
            that both versions have; see shadow.score_distance.
        score_distance_max: the largest of them.
        dropped: copies that were not made because too many waited already.
        failed: copies without a usable answer: refused, late, or no such label on the server.
    """

    version: Number
    compared: Count
    agreed: Count
    score_distance_sum: Distance
    score_distance_max: Annotated[float, Field(ge=0, le=1)]
    dropped: Count
    failed: Count

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.agreed > self.compared:
            raise ValueError("agreed cannot be more than compared")
        return self


class TrafficReport(Record):
    """What one front end counted since it was started; versions ascending, each once."""

    schema_name: ClassVar[str] = "liftgate.traffic/1"
    model: ModelName
    front_end: Annotated[str, Field(min_length=1, max_length=253)]
    started_at: Timestamp
    at: Timestamp
    versions: tuple[VersionTraffic, ...]
    shadows: tuple[ShadowTraffic, ...]

    @model_validator(mode="after")
    def _sorted_and_unique(self) -> Self:
        for entries in (self.versions, self.shadows):
            numbers = [entry.version for entry in entries]
            if numbers != sorted(set(numbers)):
                raise ValueError("versions must be ascending, each once")
        return self

    def version(self, number: int) -> VersionTraffic | None:
        """Return what a version was asked, None when nothing was counted for it."""
        return next((entry for entry in self.versions if entry.version == number), None)

    def shadow(self, number: int) -> ShadowTraffic | None:
        """Return how a shadow compared, None when nothing was counted for it."""
        return next((entry for entry in self.shadows if entry.version == number), None)

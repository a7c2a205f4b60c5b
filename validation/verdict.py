"""The gate's decision, as a record.

Its place in the flow: gate.py makes it, approval.py binds a person's signature to it, promotion
refuses without it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from artifact_sync.canonical import FrozenModel, Record, Sha256, Timestamp
from artifact_sync.records import ModelName, Number, RunId

Outcome = Literal["better", "not better", "cannot tell"]


class ChampionReference(FrozenModel):
    """The champion that a candidate was compared with: the stable version of a release."""

    release: Number
    version: Number
    manifest_sha256: Sha256


class Reason(FrozenModel):
    """One check of the policy: its name, what it says of the candidate, and the sentence with its figures.

    `label` names the class for a check of one class. `more_labels` is the number of further labelled
    photos (of that class) that would decide with the policy's power; None when no number would or
    none is needed.
    """

    check: str
    outcome: Outcome
    statement: str
    label: str | None = None
    more_labels: Annotated[int, Field(ge=1)] | None = None


class Verdict(Record):
    """The machine's decision about one candidate, bound by digests to all that it rests on.

    `champion` is None only for a verdict of `--first`, when nothing was served yet.
    """

    schema_name: ClassVar[str] = "liftgate.verdict/1"
    run_id: RunId
    model: ModelName
    outcome: Outcome
    reasons: Annotated[tuple[Reason, ...], Field(min_length=1)]
    candidate_manifest_sha256: Sha256
    champion: ChampionReference | None
    holdout_sha256: Sha256
    policy_sha256: Sha256
    report_sha256: Sha256
    decided_at: Timestamp

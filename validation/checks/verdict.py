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

    `label` names the class for a check of one class, `slice` the slice ("device = phone") for a check
    of one slice. `more_labels` is the number of labels to bring (of that class or slice) that would
    decide with the policy's power; None when no number would or none is needed.
    """

    check: str
    outcome: Outcome
    statement: str
    label: str | None = None
    slice: str | None = None
    more_labels: Annotated[int, Field(ge=1)] | None = None


class BudgetUse(FrozenModel):
    """What this verdict spent of its holdout's error budget.

    Attributes:
        number: the try's number in the holdout's ledger, from 1.
        entry_sha256: the digest of that entry.
        level: the level at which every check was tested on the sealed photos, 0 to 1.
        sealed_photos: how many sealed photos decided.
        is_confirmed: whether all checks hold on them.
        tries_left: how many more candidates this holdout can judge.
        is_opened: whether nothing is left to protect, so that the report shows the sealed photos too.
    """

    number: Number
    entry_sha256: Sha256
    level: Annotated[float, Field(gt=0, lt=1)]
    sealed_photos: Annotated[int, Field(ge=1)]
    is_confirmed: bool
    tries_left: Annotated[int, Field(ge=0)]
    is_opened: bool


class Verdict(Record):
    """The machine's decision about one candidate, bound by digests to all that it rests on.

    Attributes:
        champion: None only for a verdict of `--first`, when nothing was served yet.
        budget: what it spent; None when the open photos alone decided, which costs nothing.
        without_suspects: the outcome on the shown photos without those whose labels both models
            dispute; None when there are none. Where it differs, `outcome` is not "better".
    """

    schema_name: ClassVar[str] = "liftgate.verdict/2"
    run_id: RunId
    model: ModelName
    outcome: Outcome
    reasons: Annotated[tuple[Reason, ...], Field(min_length=1)]
    candidate_manifest_sha256: Sha256
    champion: ChampionReference | None
    budget: BudgetUse | None = None
    without_suspects: Outcome | None = None
    holdout_sha256: Sha256
    policy_sha256: Sha256
    report_sha256: Sha256
    decided_at: Timestamp

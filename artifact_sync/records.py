"""The records that cross between the sites or lie in a run folder.

Their place in the flow: DESIGN §3 says where each is stored. All are frozen; their bytes are
canonical (canonical.py), so a digest names exactly one record.
"""

from __future__ import annotations

import posixpath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from artifact_sync.canonical import FrozenModel, Record, Sha256, Timestamp

Number = Annotated[int, Field(ge=1, le=999_999)]
"""A version or release number: six digits in keys, so that names sort as numbers do."""

FIRST_EMERGENCY_VERSION = 900_000
"""Numbers from here on are versions that went past the gate: they never meet the approvers' numbers, and show."""

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{2,62}$")]


def _check_relative_path(path: str) -> str:
    if not path or path.startswith("/") or "\\" in path or any(ord(char) < 32 for char in path):
        raise ValueError(f"not a plain relative path: {path!r}")
    if posixpath.normpath(path) != path or path.split("/", maxsplit=1)[0] == "..":
        raise ValueError(f"not a normal relative path: {path!r}")
    return path


RelativePath = Annotated[str, AfterValidator(_check_relative_path)]


def _is_none(value: object) -> bool:
    return value is None


class FileEntry(FrozenModel):
    """One file of a directory: POSIX path relative to it, size in bytes, SHA-256."""

    path: RelativePath
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Manifest(Record):
    """Every file of a directory, sorted by path; its own digest names the directory's content."""

    schema_name: ClassVar[str] = "liftgate.manifest/1"
    files: tuple[FileEntry, ...]

    @model_validator(mode="after")
    def _sorted_and_unique(self) -> Self:
        paths = [entry.path for entry in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("files must be sorted by path, each once")
        return self

    @property
    def size_bytes(self) -> int:
        """The sum of the files' sizes in bytes."""
        return sum(entry.size_bytes for entry in self.files)


class InputContract(FrozenModel):
    """What the model takes: uint8 pixels [batch, height, width, channels], 0 to 255, RGB or grey."""

    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]
    channels: Literal[1, 3]
    dtype: Literal["uint8"] = "uint8"
    signature_name: str = "serving_default"
    input_name: str = "pixels"
    scores_name: str = "probabilities"


class Lineage(FrozenModel):
    """Exactly what made a version: the run, the code, the data, the configuration, the person."""

    run_id: RunId
    code_commit: str
    code_dirty: bool
    config_sha256: Sha256
    data_manifest_sha256: Sha256
    trained_by: str
    trained_at: Timestamp


class Evidence(FrozenModel):
    """Digests of what the decision rested on; the documents themselves lie in the bucket as blobs.

    `ledger_number` and `ledger_sha256` name the entry of the holdout's budget ledger that the verdict
    spent, so that the signed versions keep the ledger from being cut back; None where nothing was spent.
    """

    report_sha256: Sha256
    verdict_sha256: Sha256
    policy_sha256: Sha256
    holdout_sha256: Sha256
    champion_version: Number | None
    # Left out of the bytes where they are None: records from before there was a ledger keep their digests.
    ledger_number: Annotated[Number | None, Field(exclude_if=_is_none)] = None
    ledger_sha256: Annotated[Sha256 | None, Field(exclude_if=_is_none)] = None


class Emergency(FrozenModel):
    """Why a version went past the gate and the approvers, and the only release that may bring it.

    The holder of the break-glass key signs it with the version, so the releaser's key alone can neither
    make such a release nor bring an old one back.
    """

    release: Number
    by: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]
    verdict: Literal["better", "not better", "cannot tell", "none"]


class VersionRecord(Record):
    """`versions/000042.json`: a number for one model's content, immutable.

    It rests either on evidence, or on an emergency and then has a number that says so.
    """

    schema_name: ClassVar[str] = "liftgate.version/1"
    model: ModelName
    version: Number
    manifest: Manifest
    lineage: Lineage
    input_contract: InputContract
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    evidence: Annotated[Evidence | None, Field(exclude_if=_is_none)] = None
    emergency: Annotated[Emergency | None, Field(exclude_if=_is_none)] = None
    created_at: Timestamp

    @model_validator(mode="after")
    def _rests_on_something(self) -> Self:
        if (self.evidence is None) == (self.emergency is None):
            raise ValueError("a version rests on evidence or on an emergency: one of them")
        if (self.version >= FIRST_EMERGENCY_VERSION) != (self.emergency is not None):
            raise ValueError(f"numbers from {FIRST_EMERGENCY_VERSION} on are those of emergencies, and no others")
        return self


class TrafficShare(FrozenModel):
    """A version and the per cent of users (canary) or of requests (shadow) that it gets."""

    version: Number
    percent: Annotated[float, Field(gt=0, le=100)]


class ReleaseRecord(Record):
    """`releases/000057.json`: a numbered desired state, immutable, chained to the one before.

    Kind "break-glass" serves a version that nobody approved and no gate let through: to everybody, or not at all.
    """

    schema_name: ClassVar[str] = "liftgate.release/1"
    model: ModelName
    number: Number
    kind: Literal["promotion", "rollback", "break-glass"]
    stable: Number
    canary: TrafficShare | None = None
    shadow: TrafficShare | None = None
    reason: Annotated[str, Field(min_length=1)]
    by: Annotated[str, Field(min_length=1)]
    approval_sha256s: tuple[Sha256, ...] = ()
    previous_sha256: Sha256 | None
    created_at: Timestamp

    @model_validator(mode="after")
    def _emergency_shows(self) -> Self:
        shares = [share for share in (self.canary, self.shadow) if share is not None]
        if any(share.version >= FIRST_EMERGENCY_VERSION for share in shares):
            raise ValueError("a version of an emergency is the stable one, not a canary or shadow")
        if self.kind == "break-glass" and (self.stable < FIRST_EMERGENCY_VERSION or shares):
            raise ValueError("a break-glass release serves the version of an emergency, and nothing beside it")
        return self

    @property
    def is_emergency(self) -> bool:
        """Whether what it wants stable went past the gate and the approvers, by this release or an earlier one."""
        return self.stable >= FIRST_EMERGENCY_VERSION

    @property
    def about(self) -> int:
        """The version that the release was made for: its canary, else its shadow, else its stable version."""
        share = self.canary or self.shadow
        return self.stable if share is None else share.version

    @property
    def versions(self) -> tuple[int, ...]:
        """Every version that this release wants in memory, ascending, each once."""
        shares = [share.version for share in (self.canary, self.shadow) if share is not None]
        return tuple(sorted({self.stable, *shares}))


class Acknowledgement(Record):
    """`acknowledgements/000057/<host>.json`: a host says what it serves, or why it could not."""

    schema_name: ClassVar[str] = "liftgate.acknowledgement/1"
    model: ModelName
    release: Number
    release_sha256: Sha256
    host: str
    outcome: Literal["serving", "refused", "failed"]
    serving_version: Number | None
    loaded_versions: tuple[Number, ...]
    detail: str
    took_seconds: Annotated[float, Field(ge=0)]
    at: Timestamp


class LabelScore(FrozenModel):
    """One label and its score, a probability from 0 to 1."""

    label: str
    score: Annotated[float, Field(ge=0, le=1)]


class Receipt(Record):
    """What one answer was made of."""

    schema_name: ClassVar[str] = "liftgate.receipt/1"
    request_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    model: ModelName
    version: Number
    top: tuple[LabelScore, ...]
    photo_sha256: Sha256
    host: str
    at: Timestamp


NONE_OF_THESE = "(none of these)"
"""The corrected label of a photo that shows none of the model's classes."""


class FeedbackRecord(Record):
    """`feedback/<day>/<id>.json`: a person's corrected label for a receipt.

    `photo_sha256` names the photo in the bucket (metadata such as location removed); it is None
    when the person did not agree to keep the photo. `corrected_label` is a label or NONE_OF_THESE.
    """

    schema_name: ClassVar[str] = "liftgate.feedback/1"
    feedback_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    request_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    model: ModelName
    version: Number
    predicted_label: str
    corrected_label: str
    photo_sha256: Sha256 | None
    given_at: Timestamp


class RunRecord(Record):
    """`run.json` of a run folder: what was executed, on what, with which result."""

    schema_name: ClassVar[str] = "liftgate.run/1"
    run_id: RunId
    model: ModelName
    trained_by: str
    started_at: Timestamp
    finished_at: Timestamp
    code_commit: str
    code_dirty: bool
    data_manifest_sha256: Sha256
    config: dict[str, Any]
    config_sha256: Sha256
    seed: int
    is_deterministic: bool
    environment: dict[str, str]
    hardware: dict[str, str]
    metrics: dict[str, float]
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    input_contract: InputContract

    def lineage(self) -> Lineage:
        """Return the part of this record that a version carries."""
        return Lineage(
            run_id=self.run_id,
            code_commit=self.code_commit,
            code_dirty=self.code_dirty,
            config_sha256=self.config_sha256,
            data_manifest_sha256=self.data_manifest_sha256,
            trained_by=self.trained_by,
            trained_at=self.finished_at,
        )


class GoldenExample(FrozenModel):
    """One input and the scores that the training site measured for it.

    `pixels_base64` is the row-major uint8 array [height, width, channels]; `scores` has one float
    for each label, in the order of the labels.
    """

    pixels_base64: str
    scores: tuple[float, ...]


class GoldenExamples(Record):
    """`assets.extra/golden_examples.json` of an export: replayed on every host before a label moves."""

    schema_name: ClassVar[str] = "liftgate.golden-examples/1"
    height: int
    width: int
    channels: int
    tolerance: Annotated[float, Field(gt=0, lt=1)]
    examples: Annotated[tuple[GoldenExample, ...], Field(min_length=1)]

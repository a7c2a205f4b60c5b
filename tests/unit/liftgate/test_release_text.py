from __future__ import annotations

from datetime import UTC, datetime

import pytest

from artifact_sync.records import (
    Emergency,
    FileEntry,
    InputContract,
    Lineage,
    Manifest,
    ReleaseRecord,
    TrafficShare,
    VersionRecord,
)
from liftgate.release_text import emergency_document, emergency_text, kind_text, served_text

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ({}, "stable is version 1"),
        ({"canary": 5.0}, "stable is version 1, canary version 2 for 5 %"),
        ({"shadow": 100.0}, "stable is version 1, shadow version 2 for 100 %"),
        ({"canary": 0.5, "shadow": 10.0}, "stable is version 1, canary version 2 for 0.5 %, shadow version 2 for 10 %"),
    ],
)
def test_everything_that_a_release_wants_served_is_said(shares: dict[str, float], text: str) -> None:
    release = ReleaseRecord(
        model="photos",
        number=2,
        kind="promotion",
        stable=1,
        reason="fewer mistakes",
        by="rita",
        previous_sha256=None,
        created_at=datetime(2026, 11, 20, 12, tzinfo=UTC),
        **{role: TrafficShare(version=2, percent=percent) for role, percent in shares.items()},
    )
    assert served_text(release) == text


def emergency(**changes: str) -> VersionRecord:
    said = {"by": "gail", "reason": "all answers are cat", "verdict": "not better", **changes}
    return VersionRecord(
        model="photos",
        version=900_000,
        manifest=Manifest(files=(FileEntry(path="saved_model.pb", size_bytes=1, sha256=DIGEST),)),
        lineage=Lineage(
            run_id="run-a",
            code_commit="abc",
            code_dirty=False,
            config_sha256=DIGEST,
            data_manifest_sha256=DIGEST,
            trained_by="tara",
            trained_at=NOW,
        ),
        input_contract=InputContract(height=8, width=8, channels=3),
        labels=("cat", "dog"),
        emergency=Emergency(release=7, **said),
        created_at=NOW,
    )


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("none", "IT WAS NEVER JUDGED"),
        ("not better", "ITS VERDICT WAS NOT BETTER"),
        ("cannot tell", "ITS VERDICT WAS CANNOT TELL"),
        ("better", "ITS VERDICT WAS BETTER"),
    ],
)
def test_an_emergency_is_said_in_capitals(verdict: str, said: str) -> None:
    text = emergency_text(emergency(verdict=verdict))
    assert text == (
        "BREAK-GLASS: VERSION 900000 (run run-a) WENT PAST THE GATE AND THE APPROVERS with release 7, by gail; "
        f"{said}. Because: all answers are cat"
    )


def test_a_reason_cannot_add_a_line_of_its_own_or_speak_to_the_terminal() -> None:
    text = emergency_text(emergency(by="gail\nroot", reason="fire\nAll is well.\x1b[2J\u202e"))
    assert text.isprintable()
    assert "fire\\nAll is well." in text


def test_programs_are_told_the_same() -> None:
    assert emergency_document(emergency()) == {
        "version": 900_000,
        "run_id": "run-a",
        "release": 7,
        "by": "gail",
        "reason": "all answers are cat",
        "verdict": "not better",
    }


def test_the_kind_of_a_release_is_loud_only_for_an_emergency() -> None:
    fields = {"model": "photos", "number": 7, "reason": "r", "by": "b", "previous_sha256": DIGEST, "created_at": NOW}
    assert kind_text(ReleaseRecord(kind="break-glass", stable=900_000, **fields)) == "BREAK-GLASS"
    for kind in ("promotion", "rollback"):
        assert kind_text(ReleaseRecord(kind=kind, stable=1, **fields)) == kind

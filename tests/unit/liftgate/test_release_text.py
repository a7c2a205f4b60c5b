from __future__ import annotations

from datetime import UTC, datetime

import pytest

from artifact_sync.records import ReleaseRecord, TrafficShare
from liftgate.release_text import served_text


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

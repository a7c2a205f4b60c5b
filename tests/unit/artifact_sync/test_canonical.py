from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact_sync.canonical import canonical_json
from artifact_sync.errors import RecordError
from artifact_sync.records import Acknowledgement, FileEntry, Manifest, ReleaseRecord, TrafficShare

RELEASE = ReleaseRecord(
    model="photos",
    number=57,
    kind="promotion",
    stable=42,
    canary=TrafficShare(version=43, percent=5),
    reason="Fewer broken answers at night – Größe zählt",
    by="alice",
    previous_sha256="a" * 64,
    created_at=datetime(2026, 11, 20, 6, 0, tzinfo=UTC),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=json_values)
def test_canonical_json_round_trips(value: object) -> None:
    try:
        data = canonical_json(value)
    except RecordError:
        # Lone surrogates are text in Python and nothing in UTF-8.
        assert any(0xD800 <= ord(char) <= 0xDFFF for char in json.dumps(value, ensure_ascii=False))
        return
    assert canonical_json(json.loads(data)) == data


def test_a_record_survives_its_own_bytes() -> None:
    assert ReleaseRecord.from_json(RELEASE.to_json()) == RELEASE
    assert RELEASE.versions == (42, 43)


@pytest.mark.parametrize("moment", ["2026-11-20T06:00:00.5Z", "2026-11-20T07:00:00+01:00", "2026-11-20 06:00:00"])
def test_a_record_that_is_not_canonical_is_refused(moment: str) -> None:
    document = json.loads(RELEASE.to_json())
    with pytest.raises(RecordError):
        ReleaseRecord.from_json(canonical_json({**document, "created_at": moment}))


def test_white_space_and_order_are_not_canonical() -> None:
    with pytest.raises(RecordError, match="not in canonical form"):
        ReleaseRecord.from_json(json.dumps(json.loads(RELEASE.to_json()), indent=1).encode())


def test_an_unknown_schema_version_is_refused_with_the_way_out() -> None:
    data = RELEASE.to_json().replace(b"liftgate.release/1", b"liftgate.release/2")
    with pytest.raises(RecordError, match=r"schema is 'liftgate.release/2'.*Upgrade Liftgate"):
        ReleaseRecord.from_json(data)


def test_another_kind_of_record_is_refused() -> None:
    with pytest.raises(RecordError, match=r"expected schema 'liftgate.acknowledgement/1'"):
        Acknowledgement.from_json(RELEASE.to_json())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{", b"\xff", b'{"schema":"liftgate.release/1"}', b"[" * 100_000]
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(RecordError):
        ReleaseRecord.from_json(data)


def test_an_unknown_field_is_refused() -> None:
    document = json.loads(RELEASE.to_json())
    with pytest.raises(RecordError, match="colour"):
        ReleaseRecord.from_json(canonical_json({**document, "colour": "red"}))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "a//b", "", "a\\b", "a\nb", "./a", "a/"])
def test_paths_that_leave_the_directory_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        FileEntry(path=path, size_bytes=1, sha256="0" * 64)


def test_a_manifest_is_sorted_and_names_each_file_once() -> None:
    entry = FileEntry(path="b", size_bytes=1, sha256="0" * 64)
    with pytest.raises(ValueError, match="sorted"):
        Manifest(files=(entry, entry))

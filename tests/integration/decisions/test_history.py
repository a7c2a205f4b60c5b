from __future__ import annotations

import pytest

from artifact_sync.errors import NotFoundError, TrustError
from artifact_sync.trust.ceremony import rotate_trust
from artifact_sync.trust.roles import Roles
from validation.releases.history import history, trace
from validation.releases.promote import Beside


@pytest.fixture
def told(site):
    """Two promotions and a rollback."""
    site.promote(site.approved_run("run-a"))
    site.promote(site.approved_run("run-b"), beside=Beside("canary", 5))
    site.roll_back(reason="too many cats")
    return site


def test_history_tells_newest_first_who_why_and_on_what(told) -> None:
    entries = list(history(told.reader().refresh(), told.registry))
    assert [(entry.release.number, entry.release.kind, entry.version.lineage.run_id) for entry in entries] == [
        (3, "rollback", "run-a"),
        (2, "promotion", "run-b"),
        (1, "promotion", "run-a"),
    ]
    assert (entries[0].release.reason, entries[0].approvals) == ("too many cats", ())
    (approval,) = entries[1].approvals
    assert approval.is_by_present_approver
    assert (approval.signed.approval.approver, approval.signed.approval.reason) == ("alice", "fewer mistakes at night")


def test_history_can_be_cut(told) -> None:
    assert [entry.release.number for entry in history(told.reader().refresh(), told.registry, newest=1)] == [3]


@pytest.mark.parametrize(
    ("identifier", "runs"),
    [("version 2", ["run-b"]), ("2", ["run-b"]), ("run-a", ["run-a"]), ("release 2", ["run-a", "run-b"])],
)
def test_trace_finds_versions_by_number_run_and_release(told, identifier: str, runs: list[str]) -> None:
    found = trace(told.reader().refresh(), told.registry, identifier)
    assert [version.version.lineage.run_id for version in found] == runs


def test_trace_tells_the_lineage_and_where_it_was_served(told) -> None:
    view = told.reader().refresh()
    (found,) = trace(view, told.registry, view.version(1).manifest.sha256[:12])
    assert [release.number for release in found.releases] == [1, 2, 3]
    assert [approval.signed.approval.approver for approval in found.approvals] == ["alice"]
    assert [(name, is_there) for name, _, is_there in found.documents] == [
        ("report", True),
        ("verdict", True),
        ("policy", True),
        ("holdout", False),
    ]


@pytest.mark.parametrize("identifier", ["version 9", "release 9", "run-z", "", "abc", "0" * 64])
def test_what_was_never_there_is_not_found(told, identifier: str) -> None:
    with pytest.raises(NotFoundError):
        trace(told.reader().refresh(), told.registry, identifier)


def test_an_approval_that_was_changed_in_the_bucket_is_refused(told) -> None:
    view = told.reader().refresh()
    (sha256,) = view.release(1).approval_sha256s
    told.store.replace(told.registry.blob_key(sha256), b"{}")
    with pytest.raises(TrustError, match=rf"Release 1's approval {sha256} refused"):
        list(history(view, told.registry))


def test_an_approver_whose_key_was_rotated_out_is_shown_as_such(told) -> None:
    keys = told.keys
    approvers = (keys["bob"].public, keys["carol"].public)
    roles = Roles(told.roles.root, 1, approvers, 1, keys["releaser"].public)
    rotate_trust(told.reader(), roles, [keys[name] for name in ("root-1", "alice", "bob", "releaser")], now=told.now)
    (entry,) = history(told.reader().refresh(), told.registry, newest=1)
    assert entry.release.kind == "rollback"
    (first,) = trace(told.reader().refresh(), told.registry, "version 1")
    assert [approval.is_by_present_approver for approval in first.approvals] == [False]

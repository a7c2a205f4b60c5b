"""A promotion against what people say while it goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from artifact_sync.errors import RefusedError, StoreError
from validation.releases.history import history
from validation.releases.promote import promote


class CutStore:
    """A store that fails from the first write on whose key contains `part`."""

    def __init__(self, store, part: str) -> None:
        self._store, self._part, self._is_cut = store, part, False

    def create(self, key, body, *, sha256=None) -> None:
        self._is_cut = self._is_cut or self._part in key
        if self._is_cut:
            raise StoreError("the network is gone")
        self._store.create(key, body, sha256=sha256)

    def __getattr__(self, name):
        return getattr(self._store, name)


@pytest.fixture
def begun(site):
    """A run whose promotion was settled, and cut off before anything was published."""
    run = site.approved_run("run-a", by=("alice",))
    with pytest.raises(StoreError):
        site.promote(run, store=CutStore(site.store, "targets.json"))
    return run


def test_once_it_has_begun_everybody_else_comes_too_late(site, begun) -> None:
    for verb, by in ((site.reject, "bob"), (site.revoke, "alice"), (site.approve, "bob")):
        with pytest.raises(RefusedError, match=r"its promotion began at .* UTC"):
            verb(begun, by)
    assert site.standing(begun).begun.decision.release == 1
    assert site.promote(begun).release.number == 1
    entries = site.standing(begun).log.entries
    assert [entry.decision.kind for entry in entries] == ["approval", "promotion"]


def test_what_it_began_with_does_not_expire_before_it_is_finished(site, begun) -> None:
    assert site.promote(begun, now=site.now + timedelta(days=31)).release.number == 1


def test_once_another_run_took_the_number_it_is_over_and_can_be_rejected(site, begun) -> None:
    site.promote(site.approved_run("run-b"))
    assert site.standing(begun).begun is None
    assert not site.reject(begun).was_there


def test_nothing_is_begun_where_it_is_refused(site) -> None:
    run = site.run("run-a")
    with pytest.raises(RefusedError):
        site.promote(run)
    assert list(site.store.list("photos/decisions/")) == []


@pytest.mark.parametrize("field", ["by", "reason"])
def test_what_a_terminal_would_obey_is_not_published(site, field: str) -> None:
    run = site.approved_run("run-a")
    words = {"by": "rita", "reason": "because"} | {field: "\x1b[2Jrita"}
    with pytest.raises(RefusedError, match=r"U\+001B"):
        promote(run, trust=site.reader(), signer=site.keys["releaser"], now=site.now, **words)


def test_history_tells_what_was_said_before_and_shouts_what_should_not_be(site) -> None:
    run = site.run("run-a")
    site.reject(run, "bob")
    site.revoke(run, "bob")
    site.approve(run, "alice")
    site.promote(run)
    (entry,) = history(site.fresh_view(), site.registry)
    kinds = [one.decision.kind for one in entry.decisions.entries]
    assert (kinds, entry.warnings) == (["rejection", "revocation", "approval", "promotion"], ())


def test_history_shouts_a_promotion_against_a_rejection(site, monkeypatch) -> None:
    run = site.approved_run("run-a")
    site.reject(run, "bob")
    # A promoting machine whose program was changed: it has the releaser's key and asks nobody.
    monkeypatch.setattr("validation.releases.release_plan._check_not_rejected", lambda candidacy, standing: None)
    site.promote(run)
    (entry,) = history(site.fresh_view(), site.registry)
    assert entry.warnings == ("PROMOTED AGAINST THE REJECTION by bob",)


def test_history_notes_a_promotion_that_the_record_does_not_know(site) -> None:
    run = site.approved_run("run-a")
    site.promote(run)
    for info in list(site.store.list("photos/decisions/")):
        site.store.delete(info.key)
    (entry,) = history(site.fresh_view(), site.registry)
    assert len(entry.warnings) == 1
    assert "no entry of the present releaser" in entry.warnings[0]

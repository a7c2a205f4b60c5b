"""Model cards from signed releases; the last good state outlives the bucket."""

from __future__ import annotations

import pytest

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import NotFoundError, StoreError
from serving.traffic.routing import TrafficSplit
from web.catalog import TrustedModelCatalog
from web.database import open_database
from web.known_versions import KnownVersions


class FlakyStore(DirectoryStore):
    """A bucket that can go away."""

    is_away = False

    def open(self, key):
        if self.is_away:
            raise StoreError("the bucket cannot be reached")
        return super().open(key)


@pytest.fixture
def site(signed_site_type, memory_path):
    return signed_site_type(memory_path).initialise()


def test_before_the_first_release_it_says_so(site):
    with pytest.raises(NotFoundError, match="no release yet"):
        TrustedModelCatalog(site.reader("web")).split()


def test_the_split_is_that_of_the_newest_release(site):
    catalog = TrustedModelCatalog(site.reader("web"))
    first = site.promote(site.approved_run("run-001"))
    assert catalog.split() == TrafficSplit(first.version.version)
    card = catalog.card(first.version.version)
    assert (card.labels, card.contract) == (first.version.labels, first.version.input_contract)
    second = site.promote(site.approved_run("run-002"))
    assert catalog.refresh().stable == second.version.version
    assert catalog.split().stable == second.version.version
    assert catalog.card(first.version.version).labels == first.version.labels


def test_a_version_is_looked_up_when_it_is_not_known(site):
    catalog = TrustedModelCatalog(site.reader("web"))
    first = site.promote(site.approved_run("run-001"))
    assert catalog.card(first.version.version).version == first.version.version
    with pytest.raises(NotFoundError):
        catalog.card(77)


def test_what_was_known_stays_known_when_the_bucket_goes_away(site):
    store = FlakyStore(site.path / "bucket")
    catalog = TrustedModelCatalog(site.reader("web", store=store))
    site.promote(site.approved_run("run-001"))
    known = catalog.split()
    store.is_away = True
    with pytest.raises(StoreError):
        catalog.refresh()
    assert catalog.split() == known
    assert catalog.card(known.stable).version == known.stable


def test_what_was_known_stays_known_over_a_restart_while_the_bucket_is_away(site, memory_path):
    database = open_database(f"sqlite:///{memory_path / 'web.sqlite3'}")
    store = FlakyStore(site.path / "bucket")

    def started() -> TrustedModelCatalog:
        return TrustedModelCatalog(site.reader("web", store=store), known=KnownVersions(database))

    first = site.promote(site.approved_run("run-001")).version.version
    assert started().split().stable == first
    second = site.promote(site.approved_run("run-002")).version.version
    assert started().split().stable == second
    before = started().card(first)
    store.is_away = True
    assert started().split().stable == second
    assert started().card(first) == before
    site.roll_back(to=first)
    assert started().split().stable == second
    store.is_away = False
    assert started().split().stable == first
    database.close()


def test_without_a_memory_a_restart_needs_the_bucket(site):
    store = FlakyStore(site.path / "bucket")
    site.promote(site.approved_run("run-001"))
    store.is_away = True
    with pytest.raises(StoreError):
        TrustedModelCatalog(site.reader("web", store=store)).split()


def test_it_keeps_itself_fresh_in_the_background(site):
    first = site.promote(site.approved_run("run-001"))
    with TrustedModelCatalog(site.reader("web"), refresh_seconds=0.01) as catalog:
        assert catalog.split().stable == first.version.version
        second = site.promote(site.approved_run("run-002"))
        while catalog.split().stable != second.version.version:
            pass

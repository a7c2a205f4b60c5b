"""Model cards from signed releases; the last good state outlives the bucket."""

from __future__ import annotations

import pytest

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import NotFoundError, StoreError
from artifact_sync.records import TrafficShare
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


@pytest.fixture
def release(site):
    """Publish a release of three versions, the first of them stable."""
    versions = [site.promote(site.approved_run(f"run-{number}")).version.version for number in (1, 2, 3)]

    def publish(*, canary_percent: float | None = 5.0, shadow_percent: float | None = 50.0) -> TrafficSplit:
        publisher = site.publisher()
        view = publisher.view()
        latest = view.latest_release()
        shares = [
            None if percent is None else TrafficShare(version=version, percent=percent)
            for version, percent in ((versions[1], canary_percent), (versions[2], shadow_percent))
        ]
        record = latest.model_copy(
            update={
                "number": latest.number + 1,
                "stable": versions[0],
                "canary": shares[0],
                "shadow": shares[1],
                "previous_sha256": view.release_sha256(latest.number),
            }
        )
        publisher.publish_release(record, now=site.now)
        return TrafficSplit(versions[0], canary=shares[0], shadow=shares[1])

    return publish


def test_a_release_with_canary_and_shadow_is_followed_and_their_versions_are_known(site, release):
    store = FlakyStore(site.path / "bucket")
    catalog = TrustedModelCatalog(site.reader("web", store=store))
    first = release()
    assert catalog.split() == first
    # What a person's request needs is there before the first of them, so none waits for the bucket.
    store.is_away = True
    assert [catalog.card(share.version).version for share in (first.canary, first.shadow)] == [2, 3]
    store.is_away = False
    second = release(canary_percent=20.0, shadow_percent=None)
    assert catalog.refresh() == catalog.split() == second
    assert release(canary_percent=None, shadow_percent=None) == catalog.refresh()


def test_the_canary_stands_over_a_restart_while_the_bucket_is_away(site, release, memory_path):
    database = open_database(f"sqlite:///{memory_path / 'web.sqlite3'}")
    store = FlakyStore(site.path / "bucket")

    def started() -> TrustedModelCatalog:
        return TrustedModelCatalog(site.reader("web", store=store), known=KnownVersions(database))

    wanted = release()
    assert started().split() == wanted
    store.is_away = True
    restarted = started()
    assert restarted.split() == wanted
    assert [restarted.card(version).version for version in (1, 2, 3)] == [1, 2, 3]
    database.close()


def test_a_canary_whose_record_cannot_be_learned_stops_nobody(site, release, memory_path, caplog):
    database = open_database(f"sqlite:///{memory_path / 'web.sqlite3'}")
    store = FlakyStore(site.path / "bucket")

    def started() -> TrustedModelCatalog:
        return TrustedModelCatalog(site.reader("web", store=store), known=KnownVersions(database))

    wanted = release()
    key = site.registry.blob_key(site.publisher().view().version_sha256(wanted.canary.version))
    path = site.path / "bucket" / key
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data.replace(b'"cat"', b'"cow"'))
    catalog = started()
    without = TrafficSplit(wanted.stable, shadow=wanted.shadow)
    assert catalog.split() == without
    assert "nobody is sent to it" in caplog.text
    store.is_away = True
    assert started().split() == without
    store.is_away = False
    path.write_bytes(data)
    assert catalog.refresh() == wanted
    database.close()


def test_a_database_of_before_canaries_gives_the_stable_version(site, memory_path):
    """As a front end finds it that was upgraded while the bucket is away."""
    url = f"sqlite:///{memory_path / 'web.sqlite3'}"
    database = open_database(url)
    stable = site.promote(site.approved_run("run-001")).version.version
    TrustedModelCatalog(site.reader("web"), known=KnownVersions(database)).refresh()
    with database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE known_release")
        connection.exec_driver_sql("UPDATE schema_version SET version = 1")
    database.close()
    database = open_database(url)
    store = FlakyStore(site.path / "bucket")
    store.is_away = True
    catalog = TrustedModelCatalog(site.reader("web", store=store), known=KnownVersions(database))
    assert catalog.split() == TrafficSplit(stable)
    database.close()

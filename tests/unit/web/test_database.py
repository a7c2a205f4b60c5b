"""The database: durable, migrated once, and never touched by an older release."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from artifact_sync.errors import SettingsError, StoreError
from web.database import open_database


def test_what_is_committed_is_on_disk_and_what_is_deleted_is_gone(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'web.sqlite3'}")
    with database.reading() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        ]
    assert found == ["wal", 2, 1, 1]
    database.close()


def test_opening_it_from_many_threads_migrates_it_once(tmp_path):
    url = f"sqlite:///{tmp_path / 'web.sqlite3'}"
    with ThreadPoolExecutor(8) as threads:
        for database in threads.map(lambda _: open_database(url), range(16)):
            database.check_writable()
            database.close()


def test_a_database_of_a_newer_release_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'web.sqlite3'}"
    database = open_database(url)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version = 99")
    database.close()
    with pytest.raises(SettingsError, match=r"version 99.*Upgrade Liftgate"):
        open_database(url)


@pytest.mark.parametrize("url", ["nonsense", "sqlitee:///x", "postgresql+nodriver://h/d"])
def test_a_url_that_is_none_is_a_settings_error(url):
    with pytest.raises(SettingsError, match="Database URL refused"):
        open_database(url)


def test_a_place_that_cannot_be_written_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="cannot be used now"):
        open_database(f"sqlite:///{tmp_path / 'missing' / 'web.sqlite3'}")

"""Nothing acknowledged is lost and nothing arrives twice, whatever dies in between."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import soak
from sqlalchemy import event

from artifact_sync.canonical import sha256_hex
from artifact_sync.clock import ManualClock
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import NotFoundError, StoreError
from artifact_sync.records import LabelScore, Receipt
from artifact_sync.registry import Registry
from web.corrections import Correction, CorrectionStore
from web.database import open_database
from web.outbox import OutboxCourier, deliver_outbox
from web.receipts import KeptPhoto, ReceiptStore

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
PHOTO = b"a photo without metadata" * 1000


def receipt(number: int = 1) -> Receipt:
    return Receipt(
        request_id=f"{number:032x}",
        model="photos",
        version=42,
        top=(LabelScore(label="cat", score=0.75),),
        photo_sha256=sha256_hex(PHOTO),
        host="front-1",
        at=NOW,
    )


class Desk:
    """The stores over one database file, and the bucket."""

    def __init__(self, path: Path, *, store=None) -> None:
        self.database = open_database(f"sqlite:///{path / 'web.sqlite3'}")
        self.receipts = ReceiptStore(self.database)
        self.corrections = CorrectionStore(self.database)
        self.registry = Registry(store or DirectoryStore(path / "bucket"), model="photos")

    def answer(self, number: int = 1) -> None:
        kept = KeptPhoto(PHOTO, expires_at=NOW + timedelta(minutes=15))
        self.receipts.save(receipt(number), idempotency_key=None, photo=kept)

    def correct(self, number: int = 1, **changes):
        given = {"request_id": f"{number:032x}", "label": "dog", "is_photo_given": True} | changes
        return self.corrections.add(Correction(**given), now=NOW)


class AwayStore(DirectoryStore):
    """A bucket that is away until told otherwise."""

    is_away = True

    def create(self, key, body, **options):
        if self.is_away:
            raise StoreError("the bucket cannot be reached")
        super().create(key, body, **options)


@pytest.fixture
def desk(memory_path):
    opened = Desk(memory_path)
    yield opened
    opened.database.close()


def test_a_correction_reaches_the_bucket_with_its_photo(desk):
    desk.answer()
    feedback = desk.correct()
    assert deliver_outbox(desk.corrections, desk.registry, now=NOW).sent == 1
    assert list(desk.registry.feedback()) == [feedback]
    with desk.registry.open_photo(feedback.photo_sha256) as stream:
        assert stream.read() == PHOTO
    assert desk.corrections.waiting_count() == 0
    assert deliver_outbox(desk.corrections, desk.registry, now=NOW).sent == 0


def test_what_was_sent_is_no_longer_kept_here(desk, memory_path):
    desk.answer()
    desk.correct()
    deliver_outbox(desk.corrections, desk.registry, now=NOW)
    assert desk.receipts.purge_photos(now=NOW + timedelta(minutes=15)) == 1
    desk.database.close()
    with closing(sqlite3.connect(memory_path / "web.sqlite3")) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert PHOTO[:200] not in (memory_path / "web.sqlite3").read_bytes()


def test_a_bucket_that_is_away_costs_nothing_but_time(memory_path):
    store = AwayStore(memory_path / "bucket")
    desk = Desk(memory_path, store=store)
    for number in (1, 2, 3):
        desk.answer(number)
        desk.correct(number)
    now = NOW
    for _ in range(200):
        report = deliver_outbox(desk.corrections, desk.registry, now=now)
        # The first failure says that the bucket is away; the others are not tried for nothing.
        assert (report.sent, report.failed) in {(0, 1), (0, 0)}
        now += timedelta(minutes=10)
    store.is_away = False
    sent = 0
    for _ in range(3):
        sent += deliver_outbox(desk.corrections, desk.registry, now=now).sent
        now += timedelta(minutes=10)
    assert sent == 3
    assert len(list(desk.registry.feedback())) == 3
    desk.database.close()


def test_the_pause_between_attempts_grows_to_five_minutes(memory_path):
    desk = Desk(memory_path, store=AwayStore(memory_path / "bucket"))
    desk.answer()
    desk.correct()
    moments, now = [], NOW
    while len(moments) < 12:
        if deliver_outbox(desk.corrections, desk.registry, now=now).failed:
            moments.append(now)
        now += timedelta(seconds=1)
    pauses = [int((after - before).total_seconds()) for before, after in itertools.pairwise(moments)]
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    desk.database.close()


def test_a_correction_that_the_bucket_never_takes_holds_up_no_other(desk, monkeypatch):
    for number in (1, 2):
        desk.answer(number)
    first = desk.correct(1)
    second = desk.correct(2)
    write = desk.registry.write_feedback

    def refusing(feedback, *, photo):
        if feedback == first:
            raise NotFoundError("no such bucket folder")
        write(feedback, photo=photo)

    monkeypatch.setattr(desk.registry, "write_feedback", refusing)
    report = deliver_outbox(desk.corrections, desk.registry, now=NOW)
    assert (report.sent, report.failed) == (1, 1)
    assert list(desk.registry.feedback()) == [second]


def test_a_courier_delivers_and_purges_in_the_background(desk):
    desk.answer()
    desk.correct()
    clock = ManualClock(NOW + timedelta(minutes=16))
    with OutboxCourier(desk.corrections, desk.receipts, desk.registry, clock=clock, poll_seconds=0.01):
        while desk.corrections.waiting_count():
            pass
    assert len(list(desk.registry.feedback())) == 1
    assert desk.receipts.purge_photos(now=clock.now()) == 0


def test_a_correction_of_no_answer_is_refused(desk):
    with pytest.raises(NotFoundError):
        desk.correct(9)
    assert desk.corrections.waiting_count() == 0


def test_two_threads_with_one_key_save_one_correction(desk):
    from concurrent.futures import ThreadPoolExecutor

    desk.answer()
    with ThreadPoolExecutor(8) as threads:
        saved = list(threads.map(lambda _: desk.correct(idempotency_key="page:one-tap"), range(40)))
    assert len(set(saved)) == 1
    assert desk.corrections.waiting_count() == 1


def test_two_threads_with_one_key_save_one_receipt(desk):
    from concurrent.futures import ThreadPoolExecutor

    def save(number):
        return desk.receipts.save(receipt(number), idempotency_key="api:one-photo", photo=None)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(save, range(1, 40)))) == 1


def _live_until(step: int, path: Path, acknowledged: int) -> None:
    """In a child: answer, correct, deliver; die by SIGKILL at the given step of disk, database or bucket."""
    steps = 0

    def count(*_arguments) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            os.kill(os.getpid(), signal.SIGKILL)

    class CountedStore(DirectoryStore):
        def create(self, key, body, **options):
            count()
            super().create(key, body, **options)
            count()

    desk = Desk(path, store=CountedStore(path / "bucket"))
    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(desk.database.engine, name, count)
    desk.answer()
    os.write(acknowledged, b"answered ")
    desk.correct()
    os.write(acknowledged, b"thanked ")
    deliver_outbox(desk.corrections, desk.registry, now=NOW)
    os.write(acknowledged, b"done")


def test_kill_9_at_every_step_loses_nothing_that_was_acknowledged(memory_path):
    outcomes, at = [], soak.every(3)
    for step in range(at.first, 200, at.step):
        path = memory_path / str(step)
        path.mkdir()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _live_until(step, path, writing)
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read().decode()
        os.waitpid(child, 0)
        desk = Desk(path)
        deliver_outbox(desk.corrections, desk.registry, now=NOW)
        arrived = list(desk.registry.feedback())
        if "thanked" in told:
            assert len(arrived) == 1, f"step {step}: {told}"
        for feedback in arrived:
            with desk.registry.open_photo(feedback.photo_sha256) as stream:
                assert stream.read() == PHOTO
        if "answered" in told:
            assert desk.receipts.get(f"{1:032x}") == receipt(1)
        assert desk.corrections.waiting_count() == 0
        desk.database.close()
        outcomes.append(told)
        if told.endswith("done"):
            break
    print(f"{len(outcomes) - 1} kills, {at}")
    assert len(outcomes) > soak.fewest(25, step=3)
    assert {"", "answered ", "answered thanked "} <= set(outcomes)
    assert outcomes[-1].endswith("done")

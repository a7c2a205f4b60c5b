"""What a build stands on: threads that keep order, parts of pixels that grow and go, progress with rate and end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from training_cluster.datasets.build_progress import BuildProgress, Meter
from training_cluster.datasets.ordered_threads import in_order
from training_cluster.datasets.pixel_parts import PixelParts, part_count


def test_results_come_in_order_and_only_a_few_are_begun_ahead() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            gate.wait()
        return number * 2

    def things() -> Iterator[int]:
        for number in range(100):
            begun.append(number)
            if number == 4:
                gate.set()
            yield number

    results = in_order(work, things(), threads=3, ahead=6)
    assert next(results) == 0
    assert len(begun) == 6
    assert list(results) == [number * 2 for number in range(1, 100)]


def test_an_error_comes_in_its_place_and_what_waits_is_given_up() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    results = in_order(work, range(1000), threads=2, ahead=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(done) < 20


def test_parts_hold_ranges_of_digests_and_are_freed_one_by_one(tmp_path: Path) -> None:
    digests = [bytes([first]) * 32 for first in (0, 255, 70, 63, 128, 1)]
    with PixelParts(tmp_path / "parts", record_bytes=3, slots=[0, 0, 0, 0]) as parts:
        places = [parts.append(bytes([number] * 3), sha256=sha256) for number, sha256 in enumerate(digests)]
        assert places == [(0, 0), (3, 0), (1, 0), (0, 1), (2, 0), (0, 2)]
        assert [parts.part_of(sha256) for sha256 in sorted(digests)] == [0, 0, 0, 1, 2, 3]
        parts.sync()
    with PixelParts(tmp_path / "parts", record_bytes=3, slots=[3, 1, 1, 1]) as parts:
        assert [parts.read(*place) for place in places] == [bytes([number] * 3) for number in range(6)]
        assert parts.missing() == []
        parts.free(1)
        parts.free(1)
        assert parts.missing() == [1]


def test_what_a_killed_build_wrote_without_noting_it_is_overwritten(tmp_path: Path) -> None:
    with PixelParts(tmp_path / "parts", record_bytes=2, slots=[0]) as parts:
        parts.append(b"aa", sha256=bytes(32))
        parts.append(b"lo", sha256=bytes(32))
    with PixelParts(tmp_path / "parts", record_bytes=2, slots=[1]) as parts:
        assert parts.append(b"bb", sha256=bytes(32)) == (0, 1)
        assert (parts.read(0, 0), parts.read(0, 1)) == (b"aa", b"bb")


@pytest.mark.parametrize(
    ("photos", "record_bytes", "parts"), [(0, 1, 1), (1000, 192, 1), (2000, 150_528, 4), (1_000_000, 150_528, 64)]
)
def test_a_large_dataset_has_many_parts_and_a_small_one_has_one(photos: int, record_bytes: int, parts: int) -> None:
    assert part_count(photos, record_bytes) == parts


def test_progress_tells_rate_and_time_left_without_what_an_earlier_build_did(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    told: list[BuildProgress] = []
    meter = Meter(told.append, "reading", total=1000, done=400)
    for _ in range(100):
        now[0] += 0.1
        meter.add(2)
    assert 30 < len(told) <= 50
    meter.finish()
    assert told[-1] == BuildProgress("reading", 600, 1000, pytest.approx(20.0), pytest.approx(20.0))

"""Children that decode: the same pixels, in order, and no photo harms its neighbour."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from artifact_sync.errors import CapacityError, PhotoError
from artifact_sync.records import InputContract
from serving.decode_pool import DecodePool
from serving.photo import decode_photo
from serving.photo_limits import PhotoLimits

CONTRACT = InputContract(height=48, width=64, channels=3)


@pytest.fixture(scope="module")
def pool():
    with DecodePool(workers=2) as opened:
        yield opened


def test_many_photos_come_back_in_order_and_equal_to_the_direct_call(pool, corpus):
    results = list(pool.decode_many((kind.data for kind in corpus), CONTRACT))
    assert len(results) == len(corpus)
    for kind, result in zip(corpus, results, strict=True):
        if isinstance(result, PhotoError):
            assert result.reason == kind.reason, kind.name
        else:
            assert np.array_equal(result, decode_photo(kind.data, CONTRACT)), kind.name


def test_one_photo_comes_back_equal_to_the_direct_call_or_with_its_error(pool, corpus):
    for kind in corpus[::4]:
        if kind.reason is None:
            assert np.array_equal(pool.decode(kind.data, CONTRACT), decode_photo(kind.data, CONTRACT)), kind.name
        else:
            with pytest.raises(PhotoError) as caught:
                pool.decode(kind.data, CONTRACT)
            assert caught.value.reason == kind.reason, kind.name


def test_every_photo_may_have_its_own_contract(pool, photo_tools):
    data = photo_tools.encoded(photo_tools.picture(90, 60))
    for contract in (CONTRACT, InputContract(height=7, width=5, channels=1)):
        assert pool.decode(data, contract).shape == (contract.height, contract.width, contract.channels)


def test_a_killed_child_is_replaced(pool, photo_tools):
    data = photo_tools.encoded(photo_tools.picture(90, 60))
    expected = decode_photo(data, CONTRACT)
    before = set(pool.process_ids)
    for process_id in before:
        os.kill(process_id, signal.SIGKILL)
        # The parent has not reaped it, so the process is surely dead when it is a zombie.
        while Path(f"/proc/{process_id}/stat").read_text().rsplit(")")[1].split()[0] != "Z":
            pass
    for result in pool.decode_many([data] * 200, CONTRACT):
        assert np.array_equal(result, expected)
    assert not before & set(pool.process_ids)


def test_a_child_killed_while_it_starts_is_replaced(photo_tools):
    data = photo_tools.encoded(photo_tools.picture(90, 60))
    with DecodePool(workers=1) as small:
        os.kill(small.process_ids[0], signal.SIGKILL)
        assert np.array_equal(small.decode(data, CONTRACT), decode_photo(data, CONTRACT))


def test_a_machine_that_cannot_start_children_is_told_apart_from_a_bad_photo(photo_tools, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with DecodePool(workers=1) as small, pytest.raises(CapacityError, match="does not start"):
        small.decode(photo_tools.encoded(photo_tools.picture(9, 6)), CONTRACT)


def test_a_photo_over_the_cpu_limit_costs_its_child_and_no_other_photo(photo_tools):
    limits = PhotoLimits(max_scans=100_000, max_bytes=200_000_000, cpu_seconds=1, wall_seconds=60)
    large = photo_tools.encoded(photo_tools.Image.new("RGB", (3000, 3000)), progressive=True)
    start = large.rfind(b"\xff\xda")
    slow = large[:start] + large[start:-2] * 12_000 + b"\xff\xd9"
    good = photo_tools.encoded(photo_tools.picture(90, 60))
    with DecodePool(workers=1, limits=limits) as small:
        results = list(small.decode_many([good, slow, good], CONTRACT))
    assert [getattr(result, "reason", None) for result in results] == [None, "decode-limit", None]


def test_a_photo_over_the_time_limit_costs_its_child_alone(photo_tools):
    good = photo_tools.encoded(photo_tools.picture(90, 60))
    with DecodePool(workers=1, limits=PhotoLimits(wall_seconds=4.0)) as small:
        small.decode(good, CONTRACT)
        os.kill(small.process_ids[0], signal.SIGSTOP)
        with pytest.raises(PhotoError) as caught:
            small.decode(good, CONTRACT)
        assert caught.value.reason == "decode-limit"
        assert small.decode(good, CONTRACT).shape == (48, 64, 3)


def test_a_photo_over_the_memory_limit_is_refused(photo_tools):
    limits = PhotoLimits(memory_bytes=400 * 1024 * 1024)
    large = photo_tools.encoded(photo_tools.picture(7000, 7000, "RGBA"), "PNG", compress_level=1)
    good = photo_tools.encoded(photo_tools.picture(90, 60))
    with DecodePool(workers=1, limits=limits) as small:
        results = list(small.decode_many([large, good], CONTRACT))
    assert getattr(results[0], "reason", None) == "decode-limit"
    assert not isinstance(results[1], PhotoError)


def test_the_processor_limit_is_for_each_photo_and_not_for_the_childs_life(photo_tools):
    large = photo_tools.encoded(photo_tools.picture(3000, 3000), "PNG", compress_level=1)
    with DecodePool(workers=1, limits=PhotoLimits(cpu_seconds=1)) as small:
        small.decode(large, CONTRACT)
        process_id = small.process_ids[0]
        for _ in range(60):
            small.decode(large, CONTRACT)
            if processor_seconds(process_id) > 1.2:
                break
        else:
            pytest.fail("so many photos take less time than one may take")
        assert small.process_ids == (process_id,)


def processor_seconds(process_id: int) -> float:
    ticks = Path(f"/proc/{process_id}/stat").read_text().rsplit(")")[1].split()[11:13]
    return sum(int(part) for part in ticks) / os.sysconf("SC_CLK_TCK")


def test_more_callers_than_may_wait_are_told_busy(photo_tools):
    good = photo_tools.encoded(photo_tools.picture(90, 60))
    with DecodePool(workers=1, max_waiting=0, limits=PhotoLimits(wall_seconds=4)) as small:
        small.decode(good, CONTRACT)
        os.kill(small.process_ids[0], signal.SIGSTOP)
        reasons: list[str] = []

        def ask() -> None:
            try:
                small.decode(good, CONTRACT)
            except PhotoError as error:
                reasons.append(error.reason)

        callers = [threading.Thread(target=ask) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert sorted(reasons) == ["busy", "busy", "busy", "decode-limit"]


def test_a_closed_pool_says_so_and_leaves_no_process():
    with DecodePool(workers=2) as small:
        process_ids = small.process_ids
        assert len(process_ids) == 2
    assert not any(Path(f"/proc/{process_id}").exists() for process_id in process_ids)
    with pytest.raises(CapacityError, match="not open"):
        small.decode(b"", CONTRACT)


def test_a_reader_that_stops_early_leaves_the_pool_usable(pool, photo_tools):
    good = photo_tools.encoded(photo_tools.picture(90, 60))
    results = pool.decode_many([good] * 1000, CONTRACT)
    next(results)
    results.close()
    assert pool.decode(good, CONTRACT).shape == (48, 64, 3)


def test_children_hold_no_tensorflow_and_no_secrets(pool, monkeypatch, photo_tools):
    pool.decode(photo_tools.encoded(photo_tools.picture(9, 6)), CONTRACT)
    for process_id in pool.process_ids:
        assert "tensorflow" not in Path(f"/proc/{process_id}/maps").read_text()
        names = {
            entry.split(b"=")[0] for entry in Path(f"/proc/{process_id}/environ").read_bytes().split(b"\0") if entry
        }
        assert names <= {b"PYTHONPATH", b"OPENBLAS_NUM_THREADS", b"OMP_NUM_THREADS", b"MALLOC_ARENA_MAX", b"LC_CTYPE"}

"""What is known of runs before they begin: their time, their memory, and whether that is there."""

from __future__ import annotations

import pytest

from serving.embedded_server.run_memory import MemoryGate, RunMemory, available_bytes
from serving.embedded_server.run_options import RunTimes
from serving.embedded_server.status import Code, StatusError

MIB = 1 << 20


class TestTimes:
    def test_nothing_is_promised_before_the_first_run(self) -> None:
        assert RunTimes().may_reach(3600.0, rows=1)

    def test_a_run_far_from_its_deadline_needs_no_watch(self) -> None:
        times = RunTimes()
        times.add(0.004, rows=4)
        assert not times.may_reach(1.0, rows=1)
        assert times.may_reach(1.0, rows=64)
        assert times.may_reach(0.01, rows=1)

    def test_a_slow_first_run_is_forgotten_after_some_quick_ones_and_a_slow_one_is_noticed_at_once(self) -> None:
        times = RunTimes()
        times.add(2.0, rows=1)
        assert times.may_reach(10.0, rows=1)
        for _ in range(40):
            times.add(0.001, rows=1)
        assert not times.may_reach(10.0, rows=1)
        times.add(2.0, rows=1)
        assert times.may_reach(10.0, rows=1)

    def test_a_run_without_rows_counts_as_one(self) -> None:
        times = RunTimes()
        times.add(0.001, rows=0)
        assert not times.may_reach(1.0, rows=0)


class TestMemory:
    def test_an_unknown_model_is_taken_for_an_ordinary_one(self) -> None:
        memory = RunMemory()
        assert memory.is_worth_tracing(1)
        assert 10 * MIB < memory.needed_bytes(MIB) < 100 * MIB

    def test_runs_without_input_are_never_traced(self) -> None:
        assert not RunMemory().is_worth_tracing(0)

    def test_the_second_size_tells_what_is_fixed(self) -> None:
        memory = RunMemory()
        memory.note_bytes(100 * MIB + 4 * 1000, input_bytes=4)
        # One small run says nothing of large ones: no refusal because of it.
        assert memory.needed_bytes(4000) < 2 * MIB
        assert not memory.is_worth_tracing(7)
        assert memory.is_worth_tracing(8)
        memory.note_bytes(100 * MIB + 8 * 1000, input_bytes=8)
        assert memory.needed_bytes(4000) == pytest.approx(100 * MIB + 4000 * 1001, rel=0.01)

    def test_a_late_measure_of_a_small_run_changes_nothing_for_the_worse(self) -> None:
        memory = RunMemory()
        memory.note_bytes(2000, input_bytes=10)
        memory.note_bytes(4000, input_bytes=20)
        memory.note_bytes(2000, input_bytes=10)
        assert memory.needed_bytes(1000) == 201_000


class TestGate:
    def test_a_run_that_does_not_fit_is_refused_and_says_what_to_do(self) -> None:
        gate = MemoryGate(lambda: 1000 * MIB)
        said = "may take 1001 MiB and 1000 MiB are free; send fewer rows"
        with pytest.raises(StatusError, match=said) as caught, gate.holding(1001 * MIB):
            pytest.fail("it began")
        assert caught.value.code is Code.RESOURCE_EXHAUSTED

    def test_runs_under_way_count_and_are_forgotten_at_their_end(self) -> None:
        gate = MemoryGate(lambda: 1000 * MIB)
        with gate.holding(600 * MIB):
            with pytest.raises(StatusError, match="600 MiB and 400 MiB are free"), gate.holding(600 * MIB):
                pytest.fail("it began")
            with gate.holding(400 * MIB):
                pass
        with gate.holding(1000 * MIB):
            pass

    def test_small_runs_do_not_ask(self) -> None:
        with MemoryGate(lambda: 1 // 0).holding(MIB):
            pass

    def test_what_is_available_here_is_a_number_of_bytes(self) -> None:
        assert 16 * MIB < available_bytes() < 1 << 50

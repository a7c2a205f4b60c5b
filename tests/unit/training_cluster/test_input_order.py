"""The plan of an epoch: every example exactly as often as it should be, over any hosts, after any restart."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from training_cluster.datasets.block_index import BLOCK_DTYPE, Blocks
from training_cluster.inputs.order import HostPlan, OrderRules, epoch_row, host_plan, window_edges
from training_cluster.inputs.position import EpochPosition

_RULES = OrderRules(seed=7, batch_size=20, window_examples=37)


def _blocks(counts: list[list[int]]) -> Blocks:
    """Return the blocks of shards whose blocks have so many examples."""
    rows = [(shard, 0, count, 0, 0, b"") for shard, blocks in enumerate(counts) for count in blocks]
    blocks = np.array(rows, BLOCK_DTYPE)
    blocks["first"] = np.cumsum(blocks["count"]) - blocks["count"]
    return blocks


def _row(blocks: Blocks, repetitions: NDArray[np.int64], *, epoch: int = 0, seed: int = 7) -> NDArray[np.int64]:
    return epoch_row(blocks, repetitions, seed=seed, epoch=epoch, interleaved_shards=3)


def _plans(count: int, position: EpochPosition, *, pipelines: int) -> list[HostPlan]:
    return [
        host_plan(count, _RULES, position=position, pipelines=pipelines, pipeline=pipeline)
        for pipeline in range(pipelines)
    ]


def _shown(plan: HostPlan, *, steps: int | None = None, share: int) -> list[int]:
    end = None if steps is None else steps * share
    places: list[int] = plan.places[:end][plan.is_shown[:end]].tolist()
    return places


def test_a_row_holds_each_example_as_often_as_it_is_repeated_side_by_side() -> None:
    blocks = _blocks([[5, 5, 2], [7], [1, 9, 9], [4]])
    repetitions = np.random.default_rng(0).integers(0, 4, size=42)
    row = _row(blocks, repetitions)
    assert Counter(row.tolist()) == {number: times for number, times in enumerate(repetitions.tolist()) if times}
    again = [number for number, before in zip(row[1:], row[:-1], strict=True) if number == before]
    assert len(again) == (repetitions - 1).clip(0).sum()


def test_blocks_stay_whole_and_come_from_several_shards_in_turn() -> None:
    blocks = _blocks([[4] * 10] * 6)
    row = _row(blocks, np.ones(240, np.int64))
    starts = row[::4]
    np.testing.assert_array_equal(row.reshape(-1, 4), starts[:, None] + np.arange(4))
    shards = starts // 40
    assert all(len(set(shards[at : at + 3].tolist())) == 3 for at in range(0, 30, 3))
    assert len(set(shards[:30].tolist())) == 3


def test_each_epoch_and_each_seed_has_an_order_of_its_own() -> None:
    blocks, once = _blocks([[4] * 4] * 6), np.ones(96, np.int64)
    rows = {tuple(_row(blocks, once, epoch=epoch, seed=seed).tolist()) for epoch in (0, 1) for seed in (7, 8)}
    assert len(rows) == 4
    assert tuple(_row(blocks, once).tolist()) in rows


@pytest.mark.parametrize("pipelines", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 20, 199, 200, 201, 640])
def test_hosts_show_each_place_once_in_equal_parts_and_equal_steps(count: int, pipelines: int) -> None:
    plans = _plans(count, EpochPosition(0), pipelines=pipelines)
    share = 20 // pipelines
    assert {len(plan.places) for plan in plans} == {-(-count // 20) * share}
    parts = [int(plan.is_shown.sum()) for plan in plans]
    assert max(parts) - min(parts) <= 1
    assert sorted(place for plan in plans for place in _shown(plan, share=share)) == list(range(count))
    for plan in plans:
        ends = [0, *(end for _, end in plan.windows)]
        assert [begin for begin, _ in plan.windows] == ends[:-1]
        assert ends[-1] == len(plan.places)
        assert all(end - begin <= max(37, share) for begin, end in plan.windows)
        assert ((plan.places >= 0) & (plan.places < max(count, 1))).all()


@pytest.mark.parametrize("hosts", [(1, 1), (2, 2), (2, 1), (1, 2), (5, 2), (2, 5, 1), (4, 4, 2)])
def test_after_any_step_any_number_of_hosts_shows_exactly_what_was_left(hosts: tuple[int, ...]) -> None:
    """Go on after each number of steps (of the last-but-one run, the ones before do 3), and count."""
    count, steps = 193, 10
    for done in range(steps - 3 * (len(hosts) - 2) + 1):
        position, seen = EpochPosition(4), []
        for pipelines, run in zip(hosts[:-1], [3] * (len(hosts) - 2) + [done], strict=True):
            plans = _plans(count, position, pipelines=pipelines)
            seen += [place for plan in plans for place in _shown(plan, steps=run, share=20 // pipelines)]
            position = position.after(run, pipelines=pipelines)
        plans = _plans(count, position, pipelines=hosts[-1])
        assert {len(plan.places) * hosts[-1] for plan in plans} == {(steps - position.steps) * 20}
        seen += [place for plan in plans for place in _shown(plan, share=20 // hosts[-1])]
        assert sorted(seen) == list(range(count))


def test_the_same_hosts_go_on_with_the_very_order_that_they_had() -> None:
    for pipeline in range(2):
        whole = host_plan(193, _RULES, position=EpochPosition(1), pipelines=2, pipeline=pipeline)
        for steps in range(11):
            position = EpochPosition(1).after(steps, pipelines=2)
            rest = host_plan(193, _RULES, position=position, pipelines=2, pipeline=pipeline)
            np.testing.assert_array_equal(rest.places, whole.places[steps * 10 :])
            np.testing.assert_array_equal(rest.is_shown, whole.is_shown[steps * 10 :])


def test_the_last_step_is_filled_up_with_other_examples_than_one() -> None:
    plan = host_plan(181, _RULES, position=EpochPosition(0), pipelines=1, pipeline=0)
    filling = plan.places[~plan.is_shown]
    assert len(set(filling.tolist())) == len(filling) == 19


def test_each_window_shows_neighbouring_places_in_a_drawn_order() -> None:
    plans = [
        host_plan(
            640,
            OrderRules(seed=seed, batch_size=20, window_examples=100),
            position=EpochPosition(epoch),
            pipelines=2,
            pipeline=1,
        )
        for seed, epoch in ((7, 0), (7, 1), (8, 0))
    ]
    assert len({plan.places.tobytes() for plan in plans}) == 3
    for begin, end in plans[0].windows:
        shown = plans[0].places[begin:end]
        assert np.ptp(shown) == len(shown) - 1
        assert (np.diff(shown) != 1).sum() >= len(shown) // 2


def test_windows_begin_small_when_not_all_fits_into_one() -> None:
    assert window_edges(100, most=100) == [0, 100]
    assert np.diff(window_edges(900, most=80)).tolist()[:3] == [10, 20, 40]
    for steps in range(1, 300):
        sizes = np.diff(window_edges(steps, most=16))
        assert sizes.sum() == steps
        assert (sizes > 0).all()
        assert sizes.max() <= 16


def test_a_million_examples_are_planned_in_a_second() -> None:
    blocks = _blocks([[27] * 16] * 2315)
    began = time.perf_counter()
    row = _row(blocks, np.ones(1_000_080, np.int64))
    rules = OrderRules(seed=7, batch_size=1000, window_examples=850)
    position = EpochPosition(0).after(300, pipelines=4)
    plan = host_plan(len(row), rules, position=position, pipelines=5, pipeline=2)
    assert time.perf_counter() - began < 5
    assert len(plan.places) == (1001 - 300) * 200

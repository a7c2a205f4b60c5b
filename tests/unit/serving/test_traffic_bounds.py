"""When users' requests say that a version must go: sure of it, and deaf to noise."""

from __future__ import annotations

import math
import random

import pytest
import soak

from serving.traffic.bounds import (
    ShadowWindow,
    TrafficBounds,
    Window,
    judge,
    surely_increased_by,
    surely_shifted_by,
    upper_bound_ms,
    wilson,
)
from serving.traffic.observation import LATENCY_BOUNDS_MS

BOUNDS = TrafficBounds()
BUCKETS = len(LATENCY_BOUNDS_MS) + 1


def window(requests: int, errors: int = 0, *, ms: float = 20.0, top: dict[str, int] | None = None) -> Window:
    counts = [0] * BUCKETS
    counts[LATENCY_BOUNDS_MS.index(ms)] = requests - errors
    return Window(requests, errors, tuple(counts), top if top is not None else {"circle": requests - errors})


def draw(randomness: random.Random, count: int, shares: dict[str, float]) -> dict[str, int]:
    found = randomness.choices(list(shares), weights=list(shares.values()), k=count)
    return {label: found.count(label) for label in shares if label in found}


@pytest.mark.parametrize(
    ("before", "now", "is_broken"),
    [
        (window(5000, 5), window(100, 0), False),
        (window(5000, 5), window(100, 100), True),
        (window(5000, 5), window(100, 20), True),
        # Five in a hundred may be chance, fifty in a thousand are not.
        (window(5000, 5), window(100, 5), False),
        (window(5000, 5), window(1000, 70), True),
        # As bad as it was is no reason to return.
        (window(5000, 2500), window(1000, 510), False),
        # One more in a hundred is allowed, however sure it is.
        (window(100_000, 100), window(100_000, 1100), False),
        (window(100_000, 100), window(100_000, 3100), True),
        # Too few to say anything.
        (window(5000, 5), window(99, 99), False),
        (window(50, 0), window(1000, 900), False),
    ],
)
def test_errors(before: Window, now: Window, is_broken: bool) -> None:
    breach = judge(before, now, BOUNDS)
    assert (breach is not None) == is_broken
    if breach is not None:
        assert breach.what == "errors"
        assert f"{now.errors} of {now.requests} requests failed" in breach.detail


def test_intervals_are_those_of_the_papers() -> None:
    # Newcombe 1998, table II, case (a): 56/70 - 48/80 at 95 % is 0.0524 to 0.3339; Wilson's 8/10 is 0.4902 to 0.9433.
    assert surely_increased_by((48, 80), (56, 70), z=1.959964) == pytest.approx(0.0524, abs=2e-4)
    assert wilson(8, 10, z=1.959964) == pytest.approx((0.4902, 0.9433), abs=2e-4)


def mixed(fast: int, slow: int, *, fast_ms: float = 20.0, slow_ms: float = 500.0) -> Window:
    counts = [0] * BUCKETS
    counts[LATENCY_BOUNDS_MS.index(fast_ms)] += fast
    counts[LATENCY_BOUNDS_MS.index(slow_ms)] += slow
    return Window(fast + slow, 0, tuple(counts), {"circle": fast + slow})


@pytest.mark.parametrize(
    ("now", "is_broken"),
    [
        (mixed(1000, 0), False),
        (mixed(940, 60), False),
        (mixed(850, 150), True),
        # Three times as slow and yet under the floor.
        (mixed(0, 1000, slow_ms=60.0), False),
        (mixed(0, 1000, slow_ms=170.0), True),
        (mixed(80, 19), False),
    ],
)
def test_answer_times(now: Window, is_broken: bool) -> None:
    breach = judge(mixed(5000, 0), now, BOUNDS)
    assert (breach is not None) == is_broken
    if breach is not None:
        assert breach.what == "latency"


def test_the_bound_of_a_histogram_is_the_bucket_that_holds_the_share() -> None:
    assert upper_bound_ms(mixed(95, 5).latency_counts, 0.95) == 20.0
    assert upper_bound_ms(mixed(94, 6).latency_counts, 0.95) == 500.0
    assert upper_bound_ms((0,) * (BUCKETS - 1) + (7,), 0.95) == math.inf


def test_answers_that_moved_to_another_label_are_a_breach_and_other_photos_are_not() -> None:
    shares = {"circle": 0.5, "square": 0.3, "star": 0.2}
    randomness = random.Random(5)
    before = window(5000, top=draw(randomness, 5000, shares))
    same = window(1000, top=draw(randomness, 1000, shares))
    assert judge(before, same, BOUNDS) is None
    holiday = window(1000, top=draw(randomness, 1000, {"circle": 0.35, "square": 0.35, "star": 0.3}))
    assert judge(before, holiday, BOUNDS) is None
    stuck = window(300, top={"star": 300})
    breach = judge(before, stuck, BOUNDS)
    assert breach is not None
    assert breach.what == "answers"
    assert "most of all 'star': 100.0% of 300" in breach.detail


def test_chance_alone_moves_nothing_in_hundreds_of_looks() -> None:
    """Equal versions, 100 to 2000 requests, 100 labels: no look says otherwise."""
    randomness = random.Random(11)
    shares = {f"label {index}": 1.0 / (1 + index) for index in range(100)}
    strict = TrafficBounds(max_error_increase=0.001, max_answer_shift=0.001)
    broken = 0
    for _ in range(soak.rounds(150, soak=500)):
        count = randomness.choice([100, 300, 2000])
        errors = sum(randomness.random() < 0.01 for _ in range(count))
        before = window(3000, 30, top=draw(randomness, 2970, shares))
        now = window(count, errors, top=draw(randomness, count - errors, shares))
        broken += judge(before, now, strict) is not None
    assert broken == 0


def test_the_shift_of_shares_is_what_is_left_after_chance() -> None:
    assert surely_shifted_by({"a": 10_000}, {"b": 10_000}) == pytest.approx(1.0, abs=0.06)
    assert surely_shifted_by({"a": 100, "b": 100}, {"a": 105, "b": 95}) == 0.0


def test_a_shadow_decides_nothing_unless_a_bound_is_set() -> None:
    poor = ShadowWindow(compared=1000, agreed=500, score_distance_sum=300.0)
    assert judge(Window(), Window(), BOUNDS, shadow=poor) is None
    bounds = TrafficBounds(min_shadow_agreement=0.9)
    breach = judge(Window(), Window(), bounds, shadow=poor)
    assert breach is not None
    assert "same first label in 50.0%, mean score distance 0.300" in breach.detail
    assert judge(Window(), Window(), bounds, shadow=ShadowWindow(compared=1000, agreed=890)) is None, "it may be chance"
    assert judge(Window(), Window(), bounds, shadow=ShadowWindow(compared=99, agreed=0)) is None
    assert "no copied request" in str(ShadowWindow(failed=3))

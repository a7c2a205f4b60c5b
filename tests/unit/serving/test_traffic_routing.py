"""Users stay where they are, shares are what they say, and a larger share only adds users."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from serving.traffic.routing import CANARY, STABLE, TrafficSplit, is_copied, version_label

SEED = 20261120
CHI_SQUARE_19 = 64.3
"""What a chi-square of 19 degrees of freedom passes once in a million."""


def users(count: int) -> list[str]:
    """Keys as browsers have them: random hex, the same in each run."""
    source = random.Random(SEED)
    return [f"{source.getrandbits(128):032x}" for _ in range(count)]


def canary_users(keys: list[str], percent: float, salt: str = "photos") -> set[str]:
    return {key for key in keys if version_label(key, percent, salt) == CANARY}


@pytest.mark.parametrize("keys", [users(40_000), [f"user-{number}" for number in range(40_000)]])
def test_users_spread_evenly_whatever_their_keys_look_like(keys):
    edges = [5.0 * step for step in range(21)]
    sizes = [len(canary_users(keys, percent)) for percent in edges]
    bins = [high - low for low, high in itertools.pairwise(sizes)]
    expected = len(keys) / len(bins)
    assert sum((found - expected) ** 2 / expected for found in bins) < CHI_SQUARE_19


@pytest.mark.parametrize(("percent", "low", "high"), [(0.5, 116, 284), (12.5, 4602, 5398)])
def test_shares_may_be_parts_of_a_per_cent(percent, low, high):
    # 40,000 draws, six standard deviations to each side.
    assert low < len(canary_users(users(40_000), percent)) < high


def test_no_per_cent_is_nobody_and_all_per_cent_is_everybody():
    keys = users(5_000)
    assert canary_users(keys, 0) == set()
    assert canary_users(keys, 100) == set(keys)


def test_a_larger_percentage_only_adds_users():
    keys, before = users(5_000), set()
    for percent in (0.01, 0.1, 1, 5, 5.5, 20, 50, 99.9, 100):
        now = canary_users(keys, percent)
        assert before <= now
        before = now


def test_two_models_take_different_people():
    keys = users(20_000)
    one, other = canary_users(keys, 10, "photos"), canary_users(keys, 10, "plants")
    # Independent draws share a hundredth: 200, give or take six standard deviations.
    assert 115 < len(one & other) < 285


def test_the_shadow_is_drawn_apart_from_the_canary():
    keys = users(20_000)
    copied = {key for key in keys if is_copied(key, 10, "photos")}
    assert 115 < len(copied & canary_users(keys, 10)) < 285
    assert {key for key in keys if is_copied(key, 0, "photos")} == set()
    assert all(is_copied(key, 100, "photos") for key in keys[:1000])


def test_another_process_with_another_hash_seed_decides_the_same():
    program = (
        "import json, sys; from serving.traffic.routing import version_label as label; "
        "print(json.dumps([label(key, 20, 'photos') for key in json.load(sys.stdin)]))"
    )
    keys = [*users(500), "", "ключ", "a" * 128]
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(keys),
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == [version_label(key, 20, "photos") for key in keys]


def test_the_hash_stands_for_ever():
    """Changed, every user would change versions at the upgrade; these were written down once."""
    found = Counter(version_label(f"user-{number}", 20, "photos") for number in range(1000))
    assert found == {STABLE: 795, CANARY: 205}
    assert [number for number in range(40) if version_label(f"user-{number}", 20, "photos") == CANARY] == [
        10,
        12,
        27,
        33,
        37,
    ]


def test_a_release_says_the_split(release):
    assert TrafficSplit.of(release) == TrafficSplit(1, canary=release.canary, shadow=release.shadow)


@pytest.fixture
def release():
    from datetime import UTC, datetime

    from artifact_sync.records import ReleaseRecord, TrafficShare

    return ReleaseRecord(
        model="photos",
        number=1,
        kind="promotion",
        stable=1,
        canary=TrafficShare(version=2, percent=5.0),
        shadow=TrafficShare(version=3, percent=50.0),
        reason="because",
        by="sam",
        previous_sha256=None,
        created_at=datetime(2026, 11, 20, tzinfo=UTC),
    )

"""Copies of requests: asked by threads of their own, compared, counted, and in nobody's way."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from artifact_sync.errors import ModelServerError, ModelServerUnavailableError, StoreError
from artifact_sync.records import InputContract, TrafficShare

CLASSIFY = "/api/v1/classify"


@pytest.fixture
def shadow(front_end):
    """Version 44, of the stable one's pixels and labels, gets a copy of every request."""
    card = replace(front_end.catalog.known[42], version=44)
    front_end.catalog.known[44] = front_end.server.labels["shadow"] = card
    front_end.catalog.shadow = TrafficShare(version=44, percent=100.0)
    return card


def classify(front_end, photo):
    answer = front_end.client.post(CLASSIFY, data=photo, content_type="image/jpeg")
    assert answer.status_code == 200
    return answer.get_json()


def counted(front_end, version=44):
    """Return compared, agreed, failed and dropped of a shadow."""
    entry = front_end.recorder.report().shadow(version)
    return None if entry is None else (entry.compared, entry.agreed, entry.failed, entry.dropped)


def wait_for(front_end, version=44, *, compared=0, failed=0):
    """Wait until so many copies came to an end; pytest's timeout ends it otherwise."""
    while True:
        found = counted(front_end, version)
        if found is not None and found[0] >= compared and found[2] >= failed:
            return found
        time.sleep(0.001)


def test_no_thread_of_a_person_waits_while_a_shadow_hangs(front_end, shadow, photo):
    let_go, hangs, threads = threading.Event(), threading.Event(), []

    def on_predict(label):
        threads.append((label, threading.current_thread().name))
        if label == "shadow":
            hangs.set()
            # Longer than the test may take: were a person's thread to wait for it, the test would not end.
            let_go.wait()

    front_end.server.on_predict = on_predict
    with front_end.shadowing:
        classify(front_end, photo)
        hangs.wait()
        assert {classify(front_end, photo)["version"] for _ in range(10)} == {42}
        # One hangs, four wait, the others were dropped; nobody noticed.
        assert counted(front_end) == (0, 0, 0, 6)
        assert front_end.recorder.report().version(42).requests == 11
        let_go.set()
        assert wait_for(front_end, compared=5) == (5, 5, 0, 6)
    asked = {label: {thread for name, thread in threads if name == label} for label in ("stable", "shadow")}
    assert asked == {"stable": {threading.current_thread().name}, "shadow": {"shadow-0"}}


def test_answers_are_compared_by_label_and_by_distance(front_end, shadow, photo):
    front_end.server.scores = {"stable": [0.7, 0.2, 0.1], "shadow": [0.6, 0.3, 0.1]}
    with front_end.shadowing:
        classify(front_end, photo)
        wait_for(front_end, compared=1)
        front_end.server.scores["shadow"] = [0.1, 0.8, 0.1]
        classify(front_end, photo)
        assert wait_for(front_end, compared=2) == (2, 1, 0, 0)
    entry = front_end.recorder.report().shadow(44)
    assert entry.score_distance_sum == pytest.approx(0.1 + 0.6)
    assert entry.score_distance_max == pytest.approx(0.6)


def test_a_shadow_of_other_pixels_and_labels_decodes_for_itself(front_end, shadow, photo):
    contract = InputContract(height=16, width=24, channels=1)
    other = replace(shadow, contract=contract, labels=("dog", "cat", "bird"))
    front_end.catalog.known[44] = front_end.server.labels["shadow"] = other
    front_end.server.scores = {"stable": [0.7, 0.3, 0.0], "shadow": [0.3, 0.6, 0.1]}
    with front_end.shadowing:
        classify(front_end, photo)
        # "cat" won both times, at another place.
        assert wait_for(front_end, compared=1) == (1, 1, 0, 0)
    assert front_end.recorder.report().shadow(44).score_distance_sum == pytest.approx(0.05)


@pytest.mark.parametrize(
    "failure",
    [
        ModelServerUnavailableError("late"),
        ModelServerError("no such label"),
        StoreError("away"),
        ValueError("surprise"),
    ],
)
def test_a_shadow_that_fails_costs_copies_only(front_end, shadow, photo, failure):
    front_end.server.failures["shadow"] = failure
    with front_end.shadowing:
        assert classify(front_end, photo)["version"] == 42
        if not isinstance(failure, ValueError):
            assert wait_for(front_end, failed=1) == (0, 0, 1, 0)
        while front_end.server.asked.count("shadow") < 1:
            time.sleep(0.001)
        del front_end.server.failures["shadow"]
        classify(front_end, photo)
        assert wait_for(front_end, compared=1)[:2] == (1, 1)
    assert [entry.errors for entry in front_end.recorder.report().versions] == [0]


@pytest.mark.parametrize("scores", [[0.5, 0.5], [float("nan")] * 3])
def test_scores_that_are_none_are_a_failed_copy(front_end, shadow, photo, scores):
    front_end.server.scores["shadow"] = scores
    with front_end.shadowing:
        classify(front_end, photo)
        assert wait_for(front_end, failed=1) == (0, 0, 1, 0)


def test_a_label_that_points_elsewhere_counts_for_the_version_that_answered(front_end, shadow, photo):
    front_end.catalog.known[45] = front_end.server.labels["shadow"] = replace(shadow, version=45)
    with front_end.shadowing:
        classify(front_end, photo)
        assert wait_for(front_end, 45, compared=1) == (1, 1, 0, 0)
    assert counted(front_end, 44) is None


def test_a_share_of_requests_is_copied_and_answers_of_the_canary_are_not(front_end, shadow, photo):
    front_end.catalog.canary = TrafficShare(version=43, percent=100.0)
    front_end.server.labels["canary"] = front_end.catalog.known[43]
    with front_end.shadowing:
        assert classify(front_end, photo)["version"] == 43
        front_end.catalog.canary = None
        front_end.catalog.shadow = TrafficShare(version=44, percent=1e-9)
        assert classify(front_end, photo)["version"] == 42
        front_end.catalog.shadow = None
        assert classify(front_end, photo)["version"] == 42
        front_end.catalog.shadow = TrafficShare(version=44, percent=100.0)
        classify(front_end, photo)
        wait_for(front_end, compared=1)
    assert front_end.server.asked.count("shadow") == 1


def test_a_request_that_got_no_answer_is_not_copied(front_end, shadow, photo):
    with front_end.shadowing:
        front_end.server.failures["stable"] = ModelServerUnavailableError("away")
        assert front_end.client.post(CLASSIFY, data=photo, content_type="image/jpeg").status_code == 503
        del front_end.server.failures["stable"]
        classify(front_end, photo)
        assert wait_for(front_end, compared=1) == (1, 1, 0, 0)


def test_a_repeat_with_its_key_is_not_copied_again(front_end, shadow, photo):
    with front_end.shadowing:
        for _ in range(3):
            front_end.client.post(
                CLASSIFY, data=photo, content_type="image/jpeg", headers={"Idempotency-Key": "the-same-one"}
            )
        wait_for(front_end, compared=1)
    assert front_end.server.asked == ["stable", "shadow"]


def test_copies_are_dropped_and_counted_while_nobody_takes_them(front_end, shadow, photo):
    classify(front_end, photo)
    assert counted(front_end) == (0, 0, 0, 1)
    assert front_end.server.asked == ["stable"]

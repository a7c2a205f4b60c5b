"""A share of users gets the canary, each always the same version, and nobody an error because of it."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from artifact_sync.errors import ModelServerError, ModelServerUnavailableError, NotFoundError, StoreError
from artifact_sync.records import TrafficShare
from serving.traffic.routing import CANARY, version_label

CLASSIFY = "/api/v1/classify"
KEYS = [f"user-{number}" for number in range(100)]


INSIDE, OUTSIDE = next(
    (a, b)
    for a in KEYS
    for b in KEYS
    if [version_label(key, 20, "photos") == CANARY for key in (a, b)] == [True, False]
)


@pytest.fixture
def canary(front_end):
    """Version 43, of other pixels and labels, for 20 per cent of the users."""
    card = front_end.catalog.known[43]
    front_end.catalog.canary = TrafficShare(version=43, percent=20.0)
    front_end.server.labels["canary"] = card
    return card


def classify(front_end, photo, *, user=INSIDE, client=None):
    return (client or front_end.client).post(
        CLASSIFY,
        data={"photo": (io.BytesIO(photo), "a.jpg")},
        content_type="multipart/form-data",
        headers={} if user is None else {"X-Liftgate-User": user},
    )


def counts(front_end) -> dict[int, tuple[int, int, int]]:
    report = front_end.recorder.report()
    return {entry.version: (entry.requests, entry.errors, entry.fallbacks) for entry in report.versions}


def test_the_users_key_decides_and_the_receipt_says_which_version_with_its_labels(front_end, canary, photo):
    inside, outside = (classify(front_end, photo, user=user).get_json() for user in (INSIDE, OUTSIDE))
    assert (inside["version"], len(inside["top"])) == (43, 4)
    assert (outside["version"], len(outside["top"])) == (42, 3)
    assert front_end.receipts.get(inside["request_id"]).version == 43
    assert front_end.server.asked == ["canary", "stable"]
    assert counts(front_end) == {42: (1, 0, 0), 43: (1, 0, 0)}


def test_everybody_stays_with_their_version(front_end, canary, photo):
    for _ in range(2):
        versions = {user: classify(front_end, photo, user=user).get_json()["version"] for user in KEYS[:40]}
        assert versions == {user: 43 if version_label(user, 20, "photos") == CANARY else 42 for user in KEYS[:40]}


def test_without_a_canary_in_the_release_nobody_asks_for_one(front_end, canary, photo):
    front_end.catalog.canary = None
    assert classify(front_end, photo).get_json()["version"] == 42
    assert front_end.server.asked == ["stable"]


def test_a_host_without_the_label_answers_with_the_stable_version(front_end, canary, photo):
    del front_end.server.labels["canary"]
    answer = classify(front_end, photo)
    assert (answer.status_code, answer.get_json()["version"]) == (200, 42)
    assert counts(front_end) == {42: (1, 0, 0), 43: (0, 0, 1)}


@pytest.mark.parametrize(
    "failure", [ModelServerUnavailableError("late"), ModelServerError("INTERNAL: no memory"), StoreError("away")]
)
def test_a_canary_that_fails_is_counted_and_the_stable_version_answers(front_end, canary, photo, failure):
    front_end.server.failures["canary"] = failure
    answer = classify(front_end, photo)
    assert (answer.status_code, answer.get_json()["version"]) == (200, 42)
    assert front_end.server.asked == ["canary", "stable"]
    assert counts(front_end) == {42: (1, 0, 0), 43: (1, 1, 0)}


def test_a_canary_that_hangs_leaves_threads_for_everybody_else(front_end, canary, photo):
    let_go, waiting = threading.Event(), threading.Semaphore(0)

    def on_predict(label):
        if label == "canary":
            waiting.release()
            let_go.wait()

    front_end.server.on_predict = on_predict
    with ThreadPoolExecutor(16) as threads:
        # The front end of this test has 16 threads; half of them may wait for the canary.
        hanging = [threads.submit(classify, front_end, photo) for _ in range(8)]
        for _ in hanging:
            waiting.acquire()
        versions = [classify(front_end, photo, user=user).get_json()["version"] for user in [INSIDE, OUTSIDE] * 3]
        assert versions == [42] * 6
        assert counts(front_end) == {42: (6, 0, 0), 43: (0, 0, 3)}
        let_go.set()
        assert {answer.result().get_json()["version"] for answer in hanging} == {43}
    assert classify(front_end, photo).get_json()["version"] == 43


@pytest.mark.parametrize("scores", [[0.5, 0.5], [float("nan")] * 4, [0.1, 0.2, float("inf"), 0.3]])
def test_scores_of_a_canary_that_are_none_are_its_error(front_end, canary, photo, scores):
    front_end.server.scores["canary"] = scores
    assert classify(front_end, photo).get_json()["version"] == 42
    assert counts(front_end) == {42: (1, 0, 0), 43: (1, 1, 0)}


def test_a_canary_whose_version_is_not_known_here_asks_the_stable_one(front_end, canary, photo):
    del front_end.catalog.known[43]
    with pytest.raises(NotFoundError):
        front_end.catalog.card(43)
    assert classify(front_end, photo).get_json()["version"] == 42
    assert front_end.server.asked == ["stable"]


def test_a_canary_that_answers_as_a_version_nobody_signed_is_not_believed(front_end, canary, photo):
    front_end.server.labels["canary"] = replace(canary, version=66)
    assert classify(front_end, photo).get_json()["version"] == 42
    assert counts(front_end) == {42: (1, 0, 0), 43: (1, 1, 0)}


def test_a_label_that_points_elsewhere_counts_for_the_version_that_answered(front_end, canary, photo):
    front_end.catalog.known[44] = replace(canary, version=44, labels=("a", "b", "c", "d"))
    front_end.server.labels["canary"] = front_end.catalog.known[44]
    document = classify(front_end, photo).get_json()
    assert (document["version"], document["top"][0]["label"]) == (44, "d")
    assert counts(front_end) == {44: (1, 0, 0)}


def test_when_the_stable_version_fails_too_it_is_the_problem_of_today(front_end, canary, photo):
    front_end.server.failure = ModelServerUnavailableError("away")
    answer = classify(front_end, photo)
    assert (answer.status_code, answer.get_json()["type"]) == (503, "urn:liftgate:problem:model-unavailable")
    assert counts(front_end) == {42: (1, 1, 0), 43: (1, 1, 0)}


def test_a_photo_that_is_none_is_no_error_of_any_version(front_end, canary, photo):
    for same_pixels in (False, True):
        if same_pixels:
            front_end.catalog.known[43] = replace(canary, contract=front_end.catalog.known[42].contract)
        # The header stays whole, so that it is the decoding that refuses it.
        answer = classify(front_end, photo[: len(photo) // 2])
        assert answer.status_code in (415, 422)
    assert counts(front_end) == {}
    assert front_end.server.asked == []


def test_what_won_and_how_long_it_took_is_counted(front_end, canary, photo):
    front_end.server.on_predict = lambda label: front_end.clock.sleep(0.004 if label == "canary" else 0.3)
    for user in (INSIDE, OUTSIDE, OUTSIDE):
        classify(front_end, photo, user=user)
    stable, new = front_end.recorder.report().versions
    assert (stable.top_counts, new.top_counts) == ({"fish & <chips>": 2}, {"bird": 1})
    assert [index for index, count in enumerate(stable.latency_counts) if count] == [11]
    assert [index for index, count in enumerate(new.latency_counts) if count] == [3]


def test_a_browser_keeps_its_version_by_its_cookie_and_a_new_one_is_drawn_anew(front_end, canary, photo, hidden_fields):
    front_end.catalog.canary = TrafficShare(version=43, percent=50.0)
    drawn = set()
    # Random ids: that sixty are alike does not happen.
    for _ in range(60):
        browser = front_end.client
        versions = set()
        for _ in range(3):
            fields = hidden_fields(browser.get("/").text)
            page = browser.post("/classify", data=fields | {"photo": (io.BytesIO(photo), "a.jpg")})
            assert page.status_code == 200
            versions.add(front_end.receipts.get(page.headers["X-Request-Id"]).version)
        with browser.session_transaction() as session:
            expected = 43 if version_label(session["user"], 50.0, "photos") == CANARY else 42
        assert versions == {expected}
        # The same browser by the API has the same version.
        assert classify(front_end, photo, user=None, client=browser).get_json()["version"] == expected
        drawn.add(expected)
        if len(drawn) == 2:
            break
    assert drawn == {42, 43}


def test_a_program_without_any_key_is_drawn_for_each_request(front_end, canary, photo):
    for _ in range(6):
        document = classify(front_end, photo, user=None).get_json()
        expected = 43 if version_label(document["request_id"], 20.0, "photos") == CANARY else 42
        assert document["version"] == expected


@pytest.mark.parametrize("user", ["", "a b", "ü", "x" * 129])
def test_a_user_header_that_is_none_is_refused(front_end, photo, user):
    answer = classify(front_end, photo, user=user)
    assert (answer.status_code, answer.get_json()["type"]) == (400, "urn:liftgate:problem:user-malformed")


def test_the_key_stands_in_no_receipt_and_no_log(front_end, canary, photo, caplog):
    caplog.set_level("DEBUG")
    document = classify(front_end, photo, user="a-secret-of-theirs").get_json()
    record = front_end.receipts.get(document["request_id"]).to_json()
    assert b"a-secret-of-theirs" not in record
    assert not any("a-secret-of-theirs" in str(vars(entry)) for entry in caplog.records)


def test_readiness_says_the_canary(front_end, canary):
    detail = front_end.client.get("/readyz").get_json()["checks"]["catalog"]["detail"]
    assert detail == "release wants version 42, version 43 for 20 %"


def test_a_canary_of_the_same_pixels_is_asked_with_them(front_end, canary, photo):
    twin = replace(front_end.catalog.known[42], version=43)
    front_end.catalog.known[43] = front_end.server.labels["canary"] = twin
    seen = []
    predict = front_end.server.predict

    def watching(model, pixels, **options):
        seen.append(pixels)
        return predict(model, pixels, **options)

    front_end.server.predict = watching
    versions = [classify(front_end, photo, user=user).get_json()["version"] for user in (INSIDE, OUTSIDE)]
    assert versions == [43, 42]
    assert np.array_equal(seen[0], seen[1])

"""The JSON API: every answer is a documented one, whatever is sent."""

from __future__ import annotations

import io
import re

import pytest
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from artifact_sync.errors import ModelServerError, ModelServerUnavailableError, StoreError

CLASSIFY, FEEDBACK = "/api/v1/classify", "/api/v1/feedback"


def problem(answer):
    assert answer.content_type == "application/problem+json"
    document = answer.get_json()
    assert set(document) == {"type", "title", "status", "detail", "instance"}
    assert document["status"] == answer.status_code
    assert document["instance"].endswith(answer.headers["X-Request-Id"])
    return answer.status_code, document["type"].removeprefix("urn:liftgate:problem:")


def multipart(data, field="photo"):
    boundary, body = encode_multipart({field: FileStorage(io.BytesIO(data), "a.jpg")})
    return {"data": body, "content_type": f"multipart/form-data; boundary={boundary}"}


@pytest.mark.parametrize("way", ["multipart", "raw"])
def test_a_photo_is_classified(front_end, photo, way):
    sent = multipart(photo) if way == "multipart" else {"data": photo, "content_type": "image/jpeg"}
    answer = front_end.client.post(CLASSIFY, **sent)
    document = answer.get_json()
    assert answer.status_code == 200
    assert document["request_id"] == answer.headers["X-Request-Id"]
    assert (document["model"], document["version"]) == ("photos", 42)
    scores = [entry["score"] for entry in document["top"]]
    assert scores == sorted(scores, reverse=True)
    assert abs(sum(scores) - 1) < 1e-4
    assert front_end.client.get(document["result_url"]).get_json() == document


def test_both_ways_give_the_same_answer(front_end, photo):
    raw = front_end.client.post(CLASSIFY, data=photo, content_type="image/png").get_json()
    form = front_end.client.post(CLASSIFY, **multipart(photo)).get_json()
    assert raw["top"] == form["top"]


def test_an_idempotency_key_gives_the_first_answer_again(front_end, photo):
    headers = {"Idempotency-Key": "6b0c4b5e-0001"}
    answers = [front_end.client.post(CLASSIFY, headers=headers, **multipart(photo)).get_json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert front_end.server.predictions == 1


def test_an_idempotency_key_for_another_photo_is_refused(front_end, photo, photo_tools):
    headers = {"Idempotency-Key": "6b0c4b5e-0001"}
    front_end.client.post(CLASSIFY, headers=headers, **multipart(photo))
    other = photo_tools.encoded(photo_tools.picture(50, 50))
    assert problem(front_end.client.post(CLASSIFY, headers=headers, **multipart(other))) == (422, "refused")


@pytest.mark.parametrize("key", ["short", "x" * 126, "with space in it", "ümlaute-are-not"])
def test_a_malformed_idempotency_key_is_refused(front_end, photo, key):
    answer = front_end.client.post(CLASSIFY, headers={"Idempotency-Key": key}, **multipart(photo))
    assert problem(answer) == (400, "idempotency-key-malformed")


def test_every_kind_of_photo_gets_a_documented_answer(front_end, photo_tools):
    wanted = {"not-an-image": 415, "format-not-allowed": 415, "too-many-bytes": 413, None: 200}
    for kind in photo_tools.photo_corpus():
        if len(kind.data) > 2_000_000:
            continue
        answer = front_end.client.post(CLASSIFY, data=kind.data or b"\0", content_type="image/jpeg")
        assert answer.status_code == wanted.get(kind.reason, 422), kind.name
        if kind.reason is not None:
            assert problem(answer)[1] == kind.reason, kind.name


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "multipart/form-data"),
        (b"--b\r\n", "multipart/form-data; boundary=b"),
        (b"no boundary here", "multipart/form-data; boundary=xyz"),
        (
            b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\nabc',
            "multipart/form-data; boundary=b",
        ),
        (b"\0" * 2000, "multipart/form-data; boundary=" + "b" * 300),
    ],
)
def test_malformed_multipart_is_a_400(front_end, body, content_type):
    assert problem(front_end.client.post(CLASSIFY, data=body, content_type=content_type)) == (400, "malformed-form")


def test_a_form_without_the_photo_is_a_400(front_end, photo):
    assert problem(front_end.client.post(CLASSIFY, **multipart(photo, "picture"))) == (400, "photo-missing")


def test_an_empty_body_is_a_400(front_end):
    assert problem(front_end.client.post(CLASSIFY, data=b"", content_type="image/jpeg")) == (400, "photo-missing")


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/x-www-form-urlencoded", ""])
def test_other_content_types_are_a_415(front_end, photo, content_type):
    answer = front_end.client.post(CLASSIFY, data=photo, content_type=content_type)
    assert problem(answer) == (415, "content-type-not-allowed")


@pytest.mark.parametrize("way", ["multipart", "raw", "raw just over", "form just over"])
def test_too_large_is_a_413_with_a_clear_word(front_end, way):
    data = b"\xff\xd8\xff" + b"\0" * (2_000_000 if "just over" in way else 5_000_000)
    sent = {"data": data, "content_type": "image/jpeg"} if way.startswith("raw") else multipart(data)
    answer = front_end.client.post(CLASSIFY, **sent)
    assert problem(answer) == (413, "too-many-bytes")
    assert "1.90735 MB" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    "failure", [ModelServerUnavailableError("10.0.0.7:8500 away"), ModelServerError("NaN"), StoreError("10.0.0.7 disk")]
)
def test_what_is_away_is_a_503_with_retry_after(front_end, photo, failure):
    front_end.server.failure = failure
    answer = front_end.client.post(CLASSIFY, **multipart(photo))
    assert problem(answer)[0] == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "10.0.0.7" not in answer.text


def test_no_release_yet_is_a_503(front_end, photo):
    front_end.catalog.released = None
    assert problem(front_end.client.post(CLASSIFY, **multipart(photo))) == (503, "not-ready")


@pytest.mark.parametrize("scores", [[float("nan"), 0.5, 0.5], [0.5, 0.5], [float("inf"), 0.0, 0.0]])
def test_scores_that_are_none_are_never_shown(front_end, photo, scores):
    front_end.server.scores["stable"] = scores
    assert problem(front_end.client.post(CLASSIFY, **multipart(photo))) == (503, "model-unavailable")


def test_an_unknown_result_is_a_404(front_end):
    for path in ("/api/v1/results/" + "0" * 32, "/api/v1/results/x", "/api/v1/nothing"):
        assert problem(front_end.client.get(path))[0] == 404


def test_a_wrong_method_is_a_405_that_says_which_are_right(front_end):
    answer = front_end.client.get(CLASSIFY)
    assert problem(answer)[0] == 405
    assert "POST" in answer.headers["Allow"]


@pytest.fixture
def answered(front_end, photo):
    return front_end.client.post(CLASSIFY, **multipart(photo)).get_json()


def test_a_correction_is_saved_before_it_is_acknowledged(front_end, answered):
    sent = {"request_id": answered["request_id"], "label": "dog", "keep_photo": True}
    answer = front_end.client.post(FEEDBACK, json=sent)
    assert answer.status_code == 201
    document = answer.get_json()
    assert document["is_photo_kept"] is True
    assert re.fullmatch("[0-9a-f]{32}", document["feedback_id"])
    (entry,) = front_end.corrections.due(now=front_end.clock.now(), limit=9)
    assert entry.feedback.feedback_id == document["feedback_id"]


def test_label_null_means_none_of_these_and_no_photo_is_kept_unasked(front_end, answered):
    answer = front_end.client.post(FEEDBACK, json={"request_id": answered["request_id"], "label": None})
    assert answer.get_json()["label"] is None
    assert answer.get_json()["is_photo_kept"] is False


def test_a_repeated_correction_is_the_first_one(front_end, answered):
    sent = {"request_id": answered["request_id"], "label": "dog"}
    headers = {"Idempotency-Key": "key-of-a-tap"}
    answers = [front_end.client.post(FEEDBACK, json=sent, headers=headers).get_json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert front_end.corrections.waiting_count() == 1
    other = front_end.client.post(FEEDBACK, json=sent | {"label": "cat"}, headers=headers)
    assert problem(other) == (422, "refused")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "malformed-json")),
        (b"{", (400, "malformed-json")),
        (b"[]", (400, "malformed-json")),
        (b'"text"', (400, "malformed-json")),
        (b"[" * 5000, (400, "malformed-json")),
        (b'{"label": "cat"}', (422, "json-fields")),
        (b'{"request_id": 5, "label": "cat"}', (422, "json-fields")),
        (b'{"request_id": "x", "label": "cat", "keep_photo": "yes"}', (422, "json-fields")),
        (b'{"request_id": "x", "label": "cat", "admin": true}', (422, "json-fields")),
        (b'{"request_id": "x", "label": "cat"}', (404, "result-not-found")),
        (b"{" + b" " * 20_000 + b"}", (413, "json-too-large")),
    ],
)
def test_malformed_corrections_are_refused(front_end, body, expected):
    answer = front_end.client.post(FEEDBACK, data=body, content_type="application/json")
    assert problem(answer) == expected


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_correction_of_another_content_type_is_refused(front_end, answered, content_type):
    body = f'{{"request_id": "{answered["request_id"]}", "label": "dog"}}'
    answer = front_end.client.post(FEEDBACK, data=body, content_type=content_type)
    assert problem(answer) == (415, "content-type-not-allowed")
    assert front_end.corrections.waiting_count() == 0


def test_a_label_that_the_version_does_not_have_is_refused(front_end, answered):
    sent = {"request_id": answered["request_id"], "label": "unicorn"}
    assert problem(front_end.client.post(FEEDBACK, json=sent)) == (422, "label-unknown")
    assert front_end.corrections.waiting_count() == 0


def test_what_is_alive_is_not_always_ready(front_end):
    assert front_end.client.get("/healthz").status_code == 200
    assert front_end.client.get("/readyz").status_code == 200
    front_end.server.failure = ModelServerUnavailableError("away")
    answer = front_end.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.get_json()["checks"]["model_server"]["ok"] is False
    assert answer.get_json()["checks"]["database"]["ok"] is True
    assert front_end.client.get("/healthz").status_code == 200


def test_not_ready_without_a_release_or_with_a_version_that_nobody_signed(front_end):
    front_end.catalog.released = None
    assert front_end.client.get("/readyz").status_code == 503
    front_end.catalog.released = front_end.catalog.known[42]
    del front_end.catalog.known[42]
    assert front_end.client.get("/readyz").status_code == 503


def test_not_ready_when_the_database_takes_no_writes(front_end):
    from sqlalchemy import event

    event.listen(front_end.database.engine, "begin", lambda c: c.exec_driver_sql("PRAGMA query_only=ON"))
    answer = front_end.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.get_json()["checks"]["database"]["ok"] is False

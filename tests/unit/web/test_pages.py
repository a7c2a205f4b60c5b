"""The pages as a browser without JavaScript uses them."""

from __future__ import annotations

import html
import io
import re

import pytest
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from artifact_sync.errors import ModelServerUnavailableError
from artifact_sync.records import NONE_OF_THESE


@pytest.fixture
def send_photo(front_end, hidden_fields):
    """Open the upload page and send a photo with its form; returns the browser, the answer and the fields."""

    def send(data, browser=None, **changed):
        browser = browser or front_end.client
        fields = hidden_fields(browser.get("/").text) | changed
        upload = FileStorage(io.BytesIO(data), "IMG_0001.jpg")
        boundary, body = encode_multipart({**fields, "photo": upload})
        answer = browser.post("/classify", data=body, content_type=f"multipart/form-data; boundary={boundary}")
        return browser, answer, fields

    return send


@pytest.fixture
def correct(send_photo, photo, hidden_fields):
    """Send a photo, then a correction with the result page's form."""

    def send(label, **extra):
        browser, answer, _ = send_photo(photo)
        return browser.post("/feedback", data={**hidden_fields(answer.text), "label": label, **extra})

    return send


def test_the_upload_page_needs_no_script_and_no_other_host(front_end):
    page = front_end.client.get("/")
    assert page.status_code == 200
    assert 'enctype="multipart/form-data"' in page.text
    assert 'capture="environment"' in page.text
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "https://" not in page.text
    assert not re.search(r"<[^>]+\s(style|on\w+)=", page.text)


def test_a_photo_gives_its_classes_version_and_request_id(send_photo, photo, front_end):
    _, answer, _ = send_photo(photo)
    assert answer.status_code == 200
    receipt = front_end.receipts.get(answer.headers["X-Request-Id"])
    assert receipt.version == 42
    assert receipt.host == "front-1"
    for entry in receipt.top:
        assert html.escape(entry.label) in answer.text
    assert "version 42" in answer.text
    assert receipt.request_id in answer.text
    assert "data:image/jpeg;base64," in answer.text
    assert not re.search(r"<[^>]+\s(style|on\w+)=", answer.text)


def test_labels_cannot_bring_markup_into_the_page(send_photo, photo):
    _, answer, _ = send_photo(photo)
    assert "<chips>" not in answer.text
    assert "fish &amp; &lt;chips&gt;" in answer.text


def test_every_label_and_none_of_these_can_be_chosen(send_photo, photo):
    _, answer, _ = send_photo(photo)
    options = [html.unescape(value) for value in re.findall(r'<option value="([^"]*)"', answer.text)]
    assert options == ["", "cat", "dog", "fish & <chips>", NONE_OF_THESE]


def test_a_correction_with_consent_is_saved_with_the_cleaned_photo(correct, front_end, photo_tools):
    thanks = correct("cat", keep_photo="yes")
    assert thanks.status_code == 200
    assert "it is “cat”" in thanks.text
    assert "goes with it to the next training" in thanks.text
    (entry,) = front_end.corrections.due(now=front_end.clock.now(), limit=10)
    assert entry.feedback.corrected_label == "cat"
    assert entry.feedback.predicted_label == "fish & <chips>"
    assert entry.photo is not None
    assert photo_tools.LOCATION not in entry.photo


def test_without_consent_no_photo_goes_along(correct, front_end):
    assert "Your photo is not kept" in correct("dog").text
    (entry,) = front_end.corrections.due(now=front_end.clock.now(), limit=10)
    assert entry.photo is None
    assert entry.feedback.photo_sha256 is None


def test_none_of_these_is_a_correction(correct, front_end):
    assert "none of the classes" in correct(NONE_OF_THESE).text
    (entry,) = front_end.corrections.due(now=front_end.clock.now(), limit=10)
    assert entry.feedback.corrected_label == NONE_OF_THESE


def test_consent_after_the_photos_time_saves_the_correction_and_says_so(send_photo, photo, hidden_fields, front_end):
    browser, answer, _ = send_photo(photo)
    front_end.clock.sleep(901)
    form = {**hidden_fields(answer.text), "label": "cat", "keep_photo": "yes"}
    assert "had been deleted already" in browser.post("/feedback", data=form).text
    (entry,) = front_end.corrections.due(now=front_end.clock.now(), limit=10)
    assert entry.photo is None


def test_reloading_the_result_page_is_the_same_answer(send_photo, photo, front_end):
    browser, first, fields = send_photo(photo)
    front_end.server.stable = front_end.catalog.known[43]
    _, second, _ = send_photo(photo, browser, **fields)
    assert first.headers["X-Request-Id"] in second.text
    assert "version 42" in second.text
    assert front_end.server.predictions == 1


def test_reloading_the_thanks_page_is_the_same_correction(send_photo, photo, hidden_fields, front_end):
    browser, answer, _ = send_photo(photo)
    form = {**hidden_fields(answer.text), "label": "cat"}
    pages = {browser.post("/feedback", data=form).text for _ in range(3)}
    assert len(pages) == 1
    assert front_end.corrections.waiting_count() == 1


def test_going_back_and_sending_another_photo_or_label_with_the_same_form_works(
    send_photo, photo, photo_tools, hidden_fields, front_end
):
    browser, first, fields = send_photo(photo)
    _, second, _ = send_photo(photo_tools.encoded(photo_tools.picture(50, 50)), browser, **fields)
    assert second.status_code == 200
    assert first.headers["X-Request-Id"] not in second.text
    form = hidden_fields(first.text)
    for label in ("cat", "dog"):
        assert browser.post("/feedback", data={**form, "label": label}).status_code == 200
    assert front_end.corrections.waiting_count() == 2


def test_what_a_person_can_mend_is_told_above_the_form(send_photo):
    _, answer, _ = send_photo(b"GIF89a not allowed")
    assert answer.status_code == 415
    assert "It is a GIF file; allowed are JPEG, PNG, WebP" in answer.text
    assert 'enctype="multipart/form-data"' in answer.text


def test_no_photo_chosen_is_told_above_the_form(send_photo):
    _, answer, _ = send_photo(b"")
    assert answer.status_code == 400
    assert "No photo was chosen" in answer.text


def test_a_photo_over_the_limit_is_told_clearly(send_photo):
    _, answer, _ = send_photo(b"\xff\xd8\xff" + b"\0" * 2_500_000)
    assert answer.status_code == 413
    assert "larger than the 1.9" in answer.text


def test_another_site_cannot_post(front_end, photo):
    for path, data in (("/classify", {"photo": (io.BytesIO(photo), "a.jpg")}), ("/feedback", {"label": "cat"})):
        answer = front_end.client.post(path, data=data, content_type="multipart/form-data")
        assert answer.status_code == 400, path
        assert "page was open for too long" in answer.text
    assert front_end.server.predictions == 0


def test_a_model_server_that_is_away_is_a_friendly_503(send_photo, photo, front_end):
    front_end.server.failure = ModelServerUnavailableError("127.0.0.1:8500 secret detail")
    _, answer, _ = send_photo(photo)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "The model does not answer at the moment" in answer.text
    assert "secret detail" not in answer.text


def test_what_nobody_foresaw_shows_no_traceback(send_photo, photo, front_end, caplog):
    front_end.server.failure = ZeroDivisionError("internal figure 4711")
    _, answer, _ = send_photo(photo)
    assert answer.status_code == 500
    assert answer.headers["X-Request-Id"] in answer.text
    assert "4711" not in answer.text
    assert "Traceback" not in answer.text
    assert "internal figure 4711" in caplog.text


def test_every_answer_carries_the_headers_that_protect(front_end):
    for path in ("/", "/nowhere", "/static/style.css", "/healthz", "/api/v1/results/x"):
        headers = front_end.client.get(path, buffered=True).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert re.fullmatch("[0-9a-f]{32}", headers["X-Request-Id"])


def test_the_session_cookie_is_out_of_reach_for_scripts_and_other_sites(front_end):
    cookie = front_end.client.get("/").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_static_files_are_named_by_their_content(front_end):
    page = front_end.client.get("/").text
    (address,) = re.findall(r'href="(/static/style\.css\?v=[0-9a-f]{12})"', page)
    assert front_end.client.get(address, buffered=True).status_code == 200


def test_a_first_visit_costs_less_than_thirty_kilobytes(front_end):
    import gzip

    client = front_end.client
    page = client.get("/").text
    addresses = {"/"} | set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page))
    assert len(addresses) == 4
    assert sum(len(gzip.compress(client.get(address, buffered=True).data)) for address in addresses) < 30_000


def test_a_log_line_holds_no_photo_and_no_place(send_photo, photo, photo_tools, caplog):
    caplog.set_level("INFO")
    send_photo(photo)
    lines = [record for record in caplog.records if record.name == "liftgate.web.request"]
    assert [line.route for line in lines] == ["/", "/classify"]
    assert all(len(str(vars(line))) < 2000 for line in lines)
    assert photo_tools.LOCATION.decode() not in str([vars(line) for line in lines])

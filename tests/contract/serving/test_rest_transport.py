"""REST's paths, verbs and codes, and what HTTP carries: keep-alive, gzip, CORS, timeouts."""

from __future__ import annotations

import gzip
import http.client
import json
from typing import Any

import pytest

GOOD = {"instances": [2.0]}
GZIP = {"Content-Encoding": "gzip"}
ORIGIN = {"Origin": "https://example.org"}


class TestPaths:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/v1/foo"),
            ("POST", "/v1/foo"),
            ("POST", "/v1/models"),
            ("GET", "/v1/models/foo:predict"),
            ("GET", "/v1/models/foo/version/50:predict"),
            ("POST", "/v1/models/foo/version/50:regress"),
            ("POST", "/v1/models/foo/versions/HELLO:regress"),
            ("POST", "/v1/models/foo/versions/1/labels/stable:predict"),
            ("POST", "/v1/models/half_plus_two:guess"),
            ("POST", "/v1/models/half_plus_two"),
            ("GET", "/v1/models/half_plus_two/metadata/more"),
            ("PUT", "/v1/models/half_plus_two:predict"),
            ("DELETE", "/v1/models/half_plus_two"),
        ],
    )
    def test_what_is_no_path_of_the_api(self, standing: Any, method: str, path: str) -> None:
        answer = standing.rest_refused(path, json.dumps(GOOD) if method in ("POST", "PUT") else None, method=method)
        assert (answer.code, answer.error) == (400, f"Malformed request: {method} {path}")

    def test_the_list_of_models_needs_a_name(self, standing: Any) -> None:
        answer = standing.rest_refused("/v1/models")
        assert (answer.code, answer.error) == (400, "Missing model name in request.")

    @pytest.mark.parametrize("number", [2**63, 2**64 - 1, 10**40])
    def test_a_version_that_is_too_large(self, standing: Any, number: int) -> None:
        answer = standing.rest_refused(f"/v1/models/half_plus_two/versions/{number}:predict", GOOD)
        assert (answer.code, answer.body) == (400, b"")

    def test_paths_outside_are_nobodys(self, standing: Any) -> None:
        for path in ("/", "/statuspage", "/index", "/v2/models/half_plus_two"):
            assert standing.rest_refused(path).code == 404

    def test_upper_and_lower_case_are_one_in_the_fixed_words(self, standing: Any) -> None:
        assert standing.rest("/V1/Models/half_plus_two:Predict", GOOD).json == {"predictions": [3.0]}
        assert standing.rest("/v1/MODELS/half_plus_two/VERSIONS/123/METADATA").code == 200

    def test_a_query_is_part_of_the_models_name(self, standing: Any) -> None:
        answer = standing.rest_refused("/v1/models/half_plus_two?x=1")
        assert answer.code == 404
        assert answer.error == "Could not find any versions of model half_plus_two?x=1"

    def test_names_are_percent_decoded(self, standing: Any) -> None:
        assert standing.rest("/v1/models/half%5Fplus_two:predict", GOOD).json == {"predictions": [3.0]}

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_a_version_stands_in_the_path(self, standing: Any, version: int) -> None:
        answer = standing.rest(f"/v1/models/plus/versions/{version}:predict", {"instances": [0.0]})
        assert answer.json == {"predictions": [float(version)]}

    @pytest.mark.parametrize(
        ("path", "code", "message"),
        [
            ("/v1/models/nobody:predict", 404, "Servable not found for request: Latest(nobody)"),
            ("/v1/models/plus/versions/9:predict", 404, "Servable not found for request: Specific(plus, 9)"),
            ("/v1/models/plus/labels/none:predict", 400, "Unrecognized servable version label: none"),
        ],
    )
    def test_who_is_not_there(self, standing: Any, path: str, code: int, message: str) -> None:
        answer = standing.rest_refused(path, GOOD)
        assert (answer.code, answer.error) == (code, message)


class TestQuestions:
    def test_status_of_all_versions(self, standing: Any) -> None:
        answer = standing.rest("/v1/models/plus")
        assert answer.code == 200
        assert answer.headers["content-type"] == "application/json"
        assert [(entry["version"], entry["state"]) for entry in answer.json["model_version_status"]] == [
            ("3", "AVAILABLE"),
            ("2", "AVAILABLE"),
            ("1", "AVAILABLE"),
        ]

    def test_status_of_one_version(self, standing: Any) -> None:
        (entry,) = standing.rest("/v1/models/plus/versions/2").json["model_version_status"]
        assert entry == {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}

    def test_status_does_not_look_at_a_label(self, standing: Any) -> None:
        for label in ("stable", "nobody's"):
            versions = standing.rest(f"/v1/models/plus/labels/{label}").json["model_version_status"]
            assert [entry["version"] for entry in versions] == ["3", "2", "1"]

    def test_an_error_of_a_version_is_told_by_name(self, operator: Any) -> None:
        operator.add(1)
        (operator.home / "own/2").mkdir()
        operator.reload(operator.entry(versions=[1, 2]))
        operator.wait_for({2: "END", 1: "AVAILABLE"})
        entry = operator.client.rest(f"/v1/models/{operator.name}/versions/2").json["model_version_status"][0]
        assert (entry["state"], entry["status"]["error_code"]) == ("END", "NOT_FOUND")
        assert "saved_model.pb" in entry["status"]["error_message"]

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("/v1/models/nobody", "Could not find any versions of model nobody"),
            ("/v1/models/plus/versions/9", "Could not find version 9 of model plus"),
            ("/v1/models/nobody/metadata", "Servable not found for request: Latest(nobody)"),
            ("/v1/models/plus/versions/9/metadata", "Servable not found for request: Specific(plus, 9)"),
        ],
    )
    def test_who_is_not_there(self, standing: Any, path: str, message: str) -> None:
        answer = standing.rest_refused(path)
        assert (answer.code, answer.error) == (404, message)

    @pytest.mark.parametrize(
        ("path", "version"),
        [("plus", "3"), ("plus/versions/2", "2"), ("plus/labels/stable", "1")],
    )
    def test_metadata(self, standing: Any, path: str, version: str) -> None:
        answer = standing.rest(f"/v1/models/{path}/metadata")
        assert answer.code == 200
        assert set(answer.json) == {"model_spec", "metadata"}
        assert answer.json["model_spec"] == {"name": "plus", "signature_name": "", "version": version}
        signatures = answer.json["metadata"]["signature_def"]["signature_def"]
        x = signatures["serving_default"]["inputs"]["x"]
        assert x["dtype"] == "DT_FLOAT"
        assert x["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
        assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"


class TestConnections:
    def test_one_connection_serves_many_requests_good_and_bad(self, standing: Any) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", standing.rest_port, timeout=60)
        try:
            for number in range(30):
                is_good = number % 3 != 2
                body = json.dumps(GOOD) if is_good else "nonsense"
                connection.request("POST", "/v1/models/half_plus_two:predict", body)
                socket = connection.sock
                with connection.getresponse() as response:
                    assert response.version == 11
                    assert response.status == (200 if is_good else 400)
                    json.loads(response.read())
                assert connection.sock is socket, "the connection was closed"
        finally:
            connection.close()

    def test_a_body_in_chunks(self, standing: Any) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", standing.rest_port, timeout=60)
        try:
            pieces = (b'{"inst', b'ances": ', b"[2.0]}")
            connection.request(
                "POST",
                "/v1/models/half_plus_two:predict",
                iter(pieces),
                encode_chunked=True,
                headers={"Transfer-Encoding": "chunked"},
            )
            with connection.getresponse() as response:
                assert (response.status, json.load(response)) == (200, {"predictions": [3.0]})
        finally:
            connection.close()


class TestGzip:
    def test_a_compressed_request_is_read(self, standing: Any) -> None:
        body = gzip.compress(json.dumps({"instances": [2.0] * 1000}).encode())
        answer = standing.rest_predict("half_plus_two", body, headers=GZIP)
        assert (answer.code, answer.json) == (200, {"predictions": [3.0] * 1000})

    def test_answers_are_not_compressed(self, standing: Any) -> None:
        body = {"instances": [2.0] * 1000}
        answer = standing.rest_predict("half_plus_two", body, headers={"Accept-Encoding": "gzip"})
        assert answer.json == {"predictions": [3.0] * 1000}
        assert "content-encoding" not in answer.headers

    def test_what_is_not_gzip(self, standing: Any) -> None:
        path = "/v1/models/half_plus_two:predict"
        for body in (json.dumps(GOOD).encode(), gzip.compress(json.dumps(GOOD).encode())[:-12]):
            answer = standing.rest_refused(path, body, headers=GZIP)
            assert 400 <= answer.code < 500


class TestCors:
    def test_headers_stand_in_answers_where_the_flag_is_on(self, optioned: Any) -> None:
        for answer in (
            optioned.rest_predict("half_plus_two", GOOD, headers=ORIGIN),
            optioned.rest("/v1/models/half_plus_two", headers=ORIGIN),
        ):
            assert answer.code == 200
            self.assert_allowed(answer)

    def test_the_question_beforehand_is_answered(self, optioned: Any) -> None:
        answer = optioned.rest("/v1/models/half_plus_two:predict", method="OPTIONS", headers=ORIGIN)
        assert answer.code == 200
        self.assert_allowed(answer)

    def test_without_the_flag_there_are_none(self, standing: Any) -> None:
        answer = standing.rest_predict("half_plus_two", GOOD, headers=ORIGIN)
        assert answer.code == 200
        assert not [name for name in answer.headers if name.startswith("access-control-")]

    @pytest.mark.parametrize("headers", [{}, {"Origin": "file://x"}, {"Origin": "null"}])
    def test_the_question_needs_an_origin_of_the_web(
        self, standing: Any, optioned: Any, headers: dict[str, str]
    ) -> None:
        for client in (standing, optioned):
            answer = client.rest_refused("/v1/models/half_plus_two:predict", method="OPTIONS", headers=headers)
            assert answer.code == 400

    @staticmethod
    def assert_allowed(answer: Any) -> None:
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-methods"] == "POST, GET"
        assert answer.headers["access-control-allow-headers"] == "Content-Type"


class TestTimeouts:
    """--rest_api_timeout_in_ms is 1500 on this server; the slow model takes 2 s, the endless one an hour."""

    @pytest.mark.parametrize("model", ["slow", "endless"])
    def test_a_request_that_takes_too_long(self, optioned: Any, model: str) -> None:
        answer = optioned.rest_refused(f"/v1/models/{model}:predict", {"instances": [1.0]})
        assert answer.code == 504
        assert answer.error

    def test_without_the_flag_two_seconds_are_not_too_long(self, standing: Any) -> None:
        answer = standing.rest_predict("slow", {"instances": [1.0]})
        assert (answer.code, answer.json) == (200, {"predictions": [1.0]})

"""The listener for metrics: two documents, GET only, few readers, and no harm when its address is taken."""

from __future__ import annotations

import http.client
import socket
import time
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from artifact_sync.clock import ManualClock
from artifact_sync.errors import SettingsError
from serving.traffic.observation import TrafficReport
from serving.traffic.recorder import TrafficRecorder
from serving.traffic_source import HttpTrafficSource
from web import metrics_listener
from web.metrics_listener import MetricsListener, check_metrics_address
from web.settings import WebSettings


@pytest.fixture
def recorder() -> TrafficRecorder:
    counted = TrafficRecorder(
        model="photos", front_end="front-1", clock=ManualClock(datetime(2026, 11, 20, tzinfo=UTC))
    )
    counted.answered(42, top_label="cat", seconds=0.01)
    return counted


@pytest.fixture
def listener(recorder):
    with MetricsListener("127.0.0.1:0", recorder) as opened:
        yield opened


def ask(listener: MetricsListener, path: str, method: str = "GET"):
    connection = http.client.HTTPConnection("127.0.0.1", listener.port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_the_report_and_the_text(listener, recorder):
    answer, body = ask(listener, "/traffic")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert TrafficReport.from_json(body) == recorder.report()
    answer, body = ask(listener, "/metrics")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b'liftgate_front_end_requests_total{model="photos",front_end="front-1",version="42"} 1\n' in body
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_agent_reads_it(listener, recorder):
    source = HttpTrafficSource([f"http://127.0.0.1:{listener.port}/traffic"], model="photos", timeout_seconds=30.0)
    reading = source.read()
    assert (reading.reports, reading.troubles) == ((recorder.report(),), ())


@pytest.mark.parametrize("path", ["/", "/traffic/", "/metrics?x=1", "/../etc/passwd", "/healthz"])
def test_there_is_nothing_else(listener, path):
    assert ask(listener, path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"])
def test_it_takes_get_only(listener, method):
    answer, _ = ask(listener, "/traffic", method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"\x16\x03\x01\r\n", b""]
)
def test_what_is_no_request_does_it_no_harm(listener, sent):
    with socket.create_connection(("127.0.0.1", listener.port)) as raw:
        raw.sendall(sent)
    assert ask(listener, "/traffic")[0].status == 200


def test_one_reader_too_many_is_turned_away_and_the_next_is_served(listener, monkeypatch):
    idle = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(metrics_listener._MAX_READERS)]
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(listener, "/traffic")
    for connection in idle:
        connection.close()
    while True:
        try:
            assert ask(listener, "/traffic")[0].status == 200
            return
        except (ConnectionError, http.client.RemoteDisconnected):
            time.sleep(0.001)


def test_a_taken_address_is_listened_on_once_it_is_free(recorder, monkeypatch):
    monkeypatch.setattr(metrics_listener, "_RETRY_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsError, match=f"Cannot listen on {address} for metrics"):
            check_metrics_address(address)
        with MetricsListener(address, recorder) as listener:
            assert listener.port is None
        listener.__enter__()
        assert listener.port is None
    try:
        while listener.port is None:
            time.sleep(0.001)
        assert ask(listener, "/traffic")[0].status == 200
    finally:
        listener.__exit__(None, None, None)
    check_metrics_address(address)


def test_it_can_be_closed_at_once_again_and_again(recorder):
    for _ in range(20):
        with MetricsListener("127.0.0.1:0", recorder) as listener:
            assert listener.port


def test_ipv6_where_there_is_any(recorder):
    try:
        check_metrics_address("[::1]:0")
    except SettingsError:
        pytest.skip("no IPv6 here")
    with MetricsListener("[::1]:0", recorder) as listener, socket.create_connection(("::1", listener.port)) as raw:
        raw.sendall(b"GET /traffic HTTP/1.0\r\n\r\n")
        assert raw.recv(12) == b"HTTP/1.0 200"


@pytest.mark.parametrize("address", ["127.0.0.1:9108", "[::1]:0", "front-1.internal:65535", None])
def test_addresses_that_can_be_set(address):
    assert WebSettings(metrics_address=address).metrics_address == address


@pytest.mark.parametrize("address", ["", "9108", "127.0.0.1", "127.0.0.1:65536", "unix:/run/x", "::1:9108", "a b:1"])
def test_addresses_that_cannot(address):
    with pytest.raises(ValidationError, match="no known form"):
        WebSettings(metrics_address=address)


def test_tls_to_the_model_server_is_set_whole_or_not_at_all(tmp_path):
    whole = {
        "server_ca_path": tmp_path / "ca.pem",
        "server_certificate_path": tmp_path / "web.pem",
        "server_key_path": tmp_path / "web.key",
        "server_name": "model-server",
    }
    name = whole.pop("server_name")
    assert WebSettings(**whole).server_key_path == tmp_path / "web.key"
    assert WebSettings(**whole, server_name=name).server_name == name
    with pytest.raises(ValidationError, match="server_name is for TLS"):
        WebSettings(server_name=name)
    for left_out in whole:
        with pytest.raises(ValidationError, match="set all of them or none"):
            WebSettings(**{key: value for key, value in whole.items() if key != left_out})

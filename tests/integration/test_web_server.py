"""The front end as a process: it drains on SIGTERM, outlives kill -9, and loses no correction."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.registry import Registry

SITE = Path(__file__).parents[1] / "front_end_site.py"


@contextmanager
def running(folder: Path, *more: str):
    """Yield the process and its address."""
    command = [sys.executable, str(SITE), str(folder), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        address = process.stdout.readline().decode().strip()
        assert address.startswith("http://127.0.0.1:"), process.stderr.read().decode()
        yield process, address
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder and the address of a front end for tests that do it no harm."""
    folder = tmp_path_factory.mktemp("shared")
    with running(folder) as (_, address):
        yield folder, address


def send(address, path, body=None, content_type="image/png"):
    request = urllib.request.Request(address + path, data=body, headers={"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")


def png(path: Path, colour) -> bytes:
    Image.new("RGB", (64, 48), colour).save(path)
    return path.read_bytes()


def children(process_id: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


def test_it_answers_corrects_and_delivers(shared, tmp_path):
    folder, address = shared
    assert send(address, "/readyz")[0] == 200
    status, answer = send(address, "/api/v1/classify", png(tmp_path / "blue.png", (0, 0, 255)))
    assert (status, answer["version"]) == (200, 1)
    body = json.dumps({"request_id": answer["request_id"], "label": "cat", "keep_photo": True}).encode()
    assert send(address, "/api/v1/feedback", body, "application/json")[0] == 201
    registry = Registry(DirectoryStore(folder / "bucket"), model="photos")
    while not list(registry.feedback()):
        time.sleep(0.05)
    (feedback,) = registry.feedback()
    assert feedback.corrected_label == "cat"
    with registry.open_photo(feedback.photo_sha256) as stream:
        assert stream.read(4) == b"\x89PNG"


def test_sigterm_lets_the_request_in_hand_end(tmp_path):
    red = png(tmp_path / "red.png", (255, 0, 0))
    with running(tmp_path / "site") as (process, address):
        send(address, "/readyz")
        answers = []
        asking = threading.Thread(target=lambda: answers.append(send(address, "/api/v1/classify", red)))
        asking.start()
        while not (tmp_path / "site/red-photo-asked").exists():
            time.sleep(0.02)
        family = children(process.pid)
        grandchildren = [child for member in family for child in children(member)]
        assert len(grandchildren) == 2
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert process.wait(timeout=30) == 0
    assert [status for status, _ in answers] == [200]
    assert not any(Path(f"/proc/{process_id}").exists() for process_id in [*family, *grandchildren])


def test_a_killed_worker_is_replaced_with_what_it_knew(tmp_path):
    blue = png(tmp_path / "blue.png", (0, 0, 255))
    with running(tmp_path / "site") as (process, address):
        _, answer = send(address, "/api/v1/classify", blue)
        (worker,) = children(process.pid)
        os.kill(worker, signal.SIGKILL)
        while True:
            try:
                status, found = send(address, f"/api/v1/results/{answer['request_id']}")
                break
            except (ConnectionError, urllib.error.URLError):
                time.sleep(0.1)
        assert (status, found) == (200, answer)
        assert children(process.pid) != [worker]


def test_a_photo_that_is_too_large_is_told_over_the_wire_and_not_by_a_broken_connection(shared):
    _, address = shared
    status, problem = send(address, "/api/v1/classify", b"\xff\xd8\xff" + b"\0" * 40_000_000, "image/jpeg")
    assert status == 413
    assert "8 MB" in problem["detail"]
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(
            b"POST /api/v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + b"\0" * 0x100000 + b"\r\n"
        )
        for _ in range(8):
            raw.sendall(b"100000\r\n" + b"\0" * 0x100000 + b"\r\n")
        raw.sendall(b"0\r\n\r\n")
        assert raw.recv(100).split()[1] == b"413"


def test_many_at_once_are_answered_or_told_to_come_again(shared, tmp_path):
    blue = png(tmp_path / "blue.png", (0, 0, 255))
    _, address = shared
    statuses = []

    def ask() -> None:
        statuses.append(send(address, "/api/v1/classify", blue)[0])

    askers = [threading.Thread(target=ask) for _ in range(60)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(statuses) == 60
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 30
    assert send(address, "/api/v1/classify", blue)[0] == 200


def test_an_address_that_is_taken_is_an_error_of_settings(tmp_path):
    from artifact_sync.errors import SettingsError
    from web.server import serve
    from web.settings import WebSettings

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"Cannot listen on 127.0.0.1:{port}"):
            serve(WebSettings(port=port), lambda: None)


def test_the_counters_are_listened_for_again_after_a_kill_and_begin_at_zero(tmp_path):
    blue = png(tmp_path / "blue.png", (0, 0, 255))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        metrics = f"127.0.0.1:{probe.getsockname()[1]}"
    with running(tmp_path / "site", metrics) as (process, address):

        def requests() -> list[int]:
            _, report = send(f"http://{metrics}", "/traffic")
            return [entry["requests"] for entry in report["versions"]]

        for path in ("/metrics", "/traffic"):
            with pytest.raises(urllib.error.HTTPError) as never_public:
                urllib.request.urlopen(address + path, timeout=30)
            with never_public.value as answer:
                assert answer.code == 404
        for _ in range(3):
            assert send(address, "/api/v1/classify", blue)[0] == 200
        assert requests() == [3]
        (worker,) = children(process.pid)
        os.kill(worker, signal.SIGKILL)
        while True:
            try:
                found = requests()
                break
            except (ConnectionError, urllib.error.URLError):
                time.sleep(0.1)
        assert found == []
        assert send(address, "/api/v1/classify", blue)[0] == 200
        assert requests() == [1]


def test_an_address_for_metrics_that_is_taken_is_an_error_of_settings(tmp_path):
    from artifact_sync.errors import SettingsError
    from web.server import serve
    from web.settings import WebSettings

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"Cannot listen on 127.0.0.1:{port} for metrics"):
            serve(WebSettings(port=0, metrics_address=f"127.0.0.1:{port}"), lambda: None)

"""S3 behind a network and a server that misbehave: a proxy in front of a real server does the harm."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artifact_sync.errors import AlreadyExistsError, IntegrityError, NotFoundError, StoreError
from artifact_sync.manifest import build_manifest, verify_manifest
from artifact_sync.pull import pull_version
from artifact_sync.push import push_export
from artifact_sync.records import VersionRecord
from artifact_sync.registry import Registry
from artifact_sync.s3_store import S3Store
from artifact_sync.settings import StoreSettings, open_store
from artifact_sync.store import read_bytes
from artifact_sync.store_race import race_store
from liftgate.local_s3 import LocalS3

MIB = 1024 * 1024
PUSH = """
import sys
from pathlib import Path
from artifact_sync.manifest import build_manifest
from artifact_sync.push import push_export
from artifact_sync.registry import Registry
from artifact_sync.s3_store import S3Store
endpoint, export, prefix = sys.argv[1:]
store = S3Store("models", prefix, endpoint, multipart_threshold_bytes=5 * 1024 * 1024, workers=1, retry_seconds=5)
push_export(Registry(store, model="m"), Path(export), build_manifest(Path(export)), workers=1)
"""


class HarmfulProxy:
    """An HTTP proxy in front of an S3 server; `harm(request number, method, path)` names what goes wrong.

    Harms: "" (none), "drop-before" (the server never hears of it), "drop-after" (the server did it,
    the client never hears), "cut" (half of the answer's body), "unconditional" (If-None-Match is
    dropped), "flip" (one byte of the request's body), or "503 SlowDown" and the like.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.removeprefix("http://")
        self.harm: Callable[[int, str, str], str] = lambda number, method, path: ""
        self.requests: list[str] = []
        self.keys_of: dict[str, int] = {}
        self.lock = threading.Lock()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.serve(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                return

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                # A client that was killed: the harm is ours.
                return

        self.server = Server(("127.0.0.1", 0), Handler)
        self.endpoint_url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> HarmfulProxy:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def reset(self, harm: Callable[[int, str, str], str] = lambda number, method, path: "") -> None:
        self.requests.clear()
        self.harm = harm

    def serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        with self.lock:
            self.requests.append(f"{handler.command} {handler.path}")
            harm = self.harm(len(self.requests), handler.command, handler.path)
        if harm == "drop-before":
            handler.close_connection = True
            return
        if harm[:3].isdigit():
            self.answer_error(handler, status=int(harm[:3]), code=harm[4:])
            return
        self.forward(handler, body, harm=harm)

    def answer_error(self, handler: http.server.BaseHTTPRequestHandler, *, status: int, code: str) -> None:
        document = code.encode()
        if not code.startswith("<"):
            document = f"<Error><Code>{code}</Code><Message>harm</Message></Error>".encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/xml")
        handler.send_header("Content-Length", str(len(document)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(document)

    def forward(self, handler: http.server.BaseHTTPRequestHandler, body: bytes, *, harm: str) -> None:
        if harm == "flip" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in handler.headers.items():
            if name.lower() != "expect" and not (harm == "unconditional" and name.lower() == "if-none-match"):
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        if harm == "drop-after":
            handler.close_connection = True
            return
        handler.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "date", "server", "content-length"}:
                handler.send_header(name, value)
        length = response.getheader("Content-Length") if handler.command == "HEAD" else None
        handler.send_header("Content-Length", length or str(len(data)))
        handler.end_headers()
        if harm == "cut":
            handler.wfile.write(data[: len(data) // 2])
            handler.close_connection = True
            return
        handler.wfile.write(data)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    with LocalS3(tmp_path_factory.mktemp("seaweedfs")) as running:
        yield running


@pytest.fixture
def credentials(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def proxy(server: LocalS3, credentials: None) -> Iterator[HarmfulProxy]:
    with HarmfulProxy(server.endpoint_url) as running:
        yield running


@pytest.fixture
def store(proxy: HarmfulProxy, tmp_path: Path) -> S3Store:
    prefix = f"tests/{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]}"
    return S3Store(
        "models", prefix, proxy.endpoint_url, multipart_threshold_bytes=5 * MIB, workers=2, retry_seconds=120
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "weights"
    path.write_bytes(random.Random(11).randbytes(12 * MIB))
    return path


def test_a_create_whose_answer_was_lost_is_not_lost_against_itself(proxy: HarmfulProxy, store: S3Store) -> None:
    proxy.reset(lambda number, method, path: "drop-after" if number == 1 else "")
    store.create("m/a", b"mine")
    assert read_bytes(store, "m/a", max_bytes=10) == b"mine"
    assert [request.split()[0] for request in proxy.requests[:3]] == ["PUT", "PUT", "HEAD"]


def test_a_rival_with_the_same_bytes_is_told_apart_from_oneself(proxy: HarmfulProxy, store: S3Store) -> None:
    store.create("m/a", b"same bytes")
    proxy.reset(lambda number, method, path: "drop-before" if number == 1 else "")
    with pytest.raises(AlreadyExistsError):
        store.create("m/a", b"same bytes")


def test_a_large_create_whose_last_answer_was_lost_is_ours(proxy: HarmfulProxy, store: S3Store, large: Path) -> None:
    lost = []

    def harm(number: int, method: str, path: str) -> str:
        if method == "POST" and "uploadId=" in path and not lost:
            lost.append(path)
            return "drop-after"
        return ""

    proxy.reset(harm)
    store.create("m/large", large)
    assert lost
    with store.open("m/large") as stream:
        assert stream.read() == large.read_bytes()
    with pytest.raises(AlreadyExistsError):
        store.create("m/large", large)


@pytest.mark.parametrize(
    "harm",
    [
        "503 SlowDown",
        "500 InternalError",
        "409 ConditionalRequestConflict",
        "403 RequestTimeTooSkewed",
        "400 RequestTimeout",
        "400 ExpiredToken",
        "429 TooManyRequests",
        "drop-before",
        "drop-after",
        "flip",
    ],
)
def test_a_failure_that_passes_is_survived_by_every_method(proxy: HarmfulProxy, store: S3Store, harm: str) -> None:
    def twice(number: int, method: str, path: str) -> str:
        return harm if number <= 2 else ""

    proxy.reset(twice)
    store.create("m/a", b"body")
    assert len(proxy.requests) > 2
    proxy.reset(twice)
    assert read_bytes(store, "m/a", max_bytes=10) == b"body"
    proxy.reset(twice)
    assert [info.key for info in store.list("m/")] == ["m/a"]
    proxy.reset(twice)
    store.replace("m/a", b"new")
    proxy.reset(twice)
    store.delete("m/a")
    proxy.reset()
    with pytest.raises(NotFoundError):
        store.open("m/a")


def test_a_conflict_at_the_end_of_a_large_create_begins_the_upload_anew(
    proxy: HarmfulProxy, store: S3Store, large: Path
) -> None:
    conflicts = []

    def harm(number: int, method: str, path: str) -> str:
        if method == "POST" and "uploadId=" in path and not conflicts:
            conflicts.append(path)
            return "409 ConditionalRequestConflict"
        return ""

    proxy.reset(harm)
    store.create("m/large", large)
    begun = [request for request in proxy.requests if request.endswith("?uploads")]
    assert len(begun) == 2
    assert [info.size_bytes for info in store.list("m/large")] == [12 * MIB]


def test_a_failed_large_create_leaves_no_parts_behind(proxy: HarmfulProxy, store: S3Store, large: Path) -> None:
    with pytest.raises(IntegrityError):
        store.create("m/large", large, sha256="0" * 64)
    aborted = [request for request in proxy.requests if request.startswith("DELETE") and "uploadId=" in request]
    assert len(aborted) == 1
    assert list(store.list("")) == []


def test_a_download_that_is_cut_goes_on_where_it_stopped(proxy: HarmfulProxy, store: S3Store, large: Path) -> None:
    store.create("m/large", large)
    proxy.reset(lambda number, method, path: "cut" if method == "GET" and number <= 6 else "")
    with store.open("m/large") as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == hashlib.sha256(large.read_bytes()).hexdigest()
    assert len(proxy.requests) == 7


def test_a_download_is_not_spliced_from_two_objects(proxy: HarmfulProxy, store: S3Store) -> None:
    store.replace("m/a", b"old" * 400_000)
    proxy.reset(lambda number, method, path: "cut" if number == 1 else "")
    with store.open("m/a") as stream:
        assert stream.read(3) == b"old"
        store.replace("m/a", b"new" * 400_000)
        with pytest.raises(StoreError, match="replaced meanwhile"):
            stream.read()


def test_a_store_that_stays_down_is_told_in_words(proxy: HarmfulProxy, server: LocalS3) -> None:
    impatient = S3Store("models", "", proxy.endpoint_url, retry_seconds=0.5)
    proxy.reset(lambda number, method, path: "503 SlowDown")
    with pytest.raises(StoreError, match=r"Cannot create m/a in bucket models: SlowDown.*try again later"):
        impatient.create("m/a", b"")
    assert len(proxy.requests) >= 2
    closed = S3Store("models", "", "http://127.0.0.1:9", retry_seconds=0.2)
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        closed.open("m/a")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("403 AccessDenied", "access denied"),
        ("403 InvalidAccessKeyId", "not convinced who we are"),
        ("404 NoSuchBucket", "has no bucket of that name"),
        ("501 NotImplemented", "does not know a header"),
    ],
)
def test_a_failure_that_does_not_pass_is_told_at_once(
    proxy: HarmfulProxy, store: S3Store, harm: str, words: str
) -> None:
    proxy.reset(lambda number, method, path: harm)
    with pytest.raises(StoreError, match=words):
        store.create("m/a", b"")
    assert len(proxy.requests) == 1


def test_a_bucket_in_another_region_is_told(proxy: HarmfulProxy, store: S3Store) -> None:
    proxy.reset(lambda number, method, path: "400 IllegalLocationConstraintException")
    with pytest.raises(StoreError, match="in another region"):
        store.create("m/a", b"")


@pytest.mark.parametrize("page", ["400 <!DOCTYPE html><p>Not for you", "200 <html>Sign in to this hotel</html>"])
def test_an_address_that_is_no_s3_server_is_told(proxy: HarmfulProxy, store: S3Store, page: str) -> None:
    proxy.reset(lambda number, method, path: page)
    with pytest.raises(StoreError, match="Check endpoint_url"):
        list(store.list(""))


def test_an_address_that_redirects_without_end_is_told(proxy: HarmfulProxy, store: S3Store) -> None:
    proxy.reset(lambda number, method, path: "301 MovedPermanently")
    with pytest.raises(StoreError, match="redirects without end"):
        store.create("m/a", b"")


def test_credentials_that_expire_are_looked_up_anew(
    server: LocalS3, proxy: HarmfulProxy, isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    profile = isolated_home / ".aws" / "credentials"
    profile.parent.mkdir()

    def write(secret: str) -> None:
        profile.write_text(
            f"[default]\naws_access_key_id = {server.access_key}\naws_secret_access_key = {secret}\n", encoding="utf-8"
        )

    def expire_then_renew(number: int, method: str, path: str) -> str:
        if number > 1:
            return ""
        write(server.secret_key)
        return "400 ExpiredToken"

    write("the-old-secret")
    proxy.reset(expire_then_renew)
    store = S3Store("models", f"tests/{os.getpid()}", proxy.endpoint_url, retry_seconds=5)
    store.create("m/renewed", b"1")
    assert len(proxy.requests) == 2


def test_without_credentials_the_way_out_is_told(
    server: LocalS3, proxy: HarmfulProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="standard AWS chain"):
        open_store(StoreSettings(url="s3://models", endpoint_url=proxy.endpoint_url)).open("m/a")
    assert proxy.requests == []


def test_a_real_server_that_ignores_the_condition_is_refused_by_the_race(monkeypatch: pytest.MonkeyPatch) -> None:
    # moto checks no signatures, so that the header can be taken away on the way to it.
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    try:
        with HarmfulProxy(f"http://{host}:{port}") as proxy:
            store = S3Store("models", "", proxy.endpoint_url)
            connection = http.client.HTTPConnection(proxy.endpoint_url.removeprefix("http://"))
            connection.request("PUT", "/models")
            assert connection.getresponse().status == 200
            connection.close()
            race_store(store, rounds=2, contenders=4)
            proxy.reset(lambda number, method, path: "unconditional")
            with pytest.raises(StoreError, match=r"ignores conditional writes.*two promoters could both win"):
                race_store(store, rounds=2, contenders=4)
            assert list(store.list("doctor/")) == []
    finally:
        moto.stop()


def test_a_push_killed_at_any_request_is_finished_by_the_next(
    server: LocalS3, proxy: HarmfulProxy, tmp_path: Path, large: Path
) -> None:
    export = tmp_path / "export"
    export.mkdir()
    (export / "saved_model.pb").write_bytes(b"graph")
    (export / "weights").write_bytes(large.read_bytes())
    files = build_manifest(export)
    kills = 0
    while _push_and_kill(proxy, export, f"kill/{kills}", at_request=kills + 1):
        direct = S3Store("models", f"kill/{kills}", server.endpoint_url, multipart_threshold_bytes=5 * MIB)
        for info in direct.list(""):
            with direct.open(info.key) as stream:
                assert hashlib.file_digest(stream, "sha256").hexdigest() == info.key.rpartition("/")[2]
        report = push_export(Registry(direct, model="m"), export, files)
        assert report.uploaded_files + report.present_files == 2
        assert {info.key.rpartition("/")[2] for info in direct.list("")} == {entry.sha256 for entry in files.files}
        kills += 1
    print(f"push over S3: killed at each of {kills} requests")
    assert kills >= 8


def _push_and_kill(proxy: HarmfulProxy, export: Path, prefix: str, *, at_request: int) -> bool:
    """Return whether the child was killed; False means that it completed first."""
    child = None
    is_started = threading.Event()

    def kill(number: int, method: str, path: str) -> str:
        if number != at_request:
            return ""
        is_started.wait()
        child.send_signal(signal.SIGKILL)
        return "drop-before"

    proxy.reset(kill)
    child = subprocess.Popen([sys.executable, "-c", PUSH, proxy.endpoint_url, str(export), prefix])
    is_started.set()
    return child.wait() == -signal.SIGKILL


def test_a_version_crosses_a_bad_network_whole(
    proxy: HarmfulProxy, store: S3Store, tmp_path: Path, large: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    randomness = random.Random(seed)
    export = tmp_path / "export"
    export.mkdir()
    (export / "saved_model.pb").write_bytes(b"graph")
    (export / "weights").write_bytes(large.read_bytes())
    files = build_manifest(export)
    version = VersionRecord.model_construct(model="m", version=7, manifest=files)
    registry = Registry(store, model="m")
    harms = ["", "", "", "cut", "drop-before", "drop-after", "flip", "500 InternalError", "503 SlowDown"]
    proxy.reset(lambda number, method, path: randomness.choice(harms) if number < 25 else "")
    assert push_export(registry, export, files).uploaded_files == 2
    proxy.reset(lambda number, method, path: randomness.choice(harms) if number < 12 else "")
    verify_manifest(pull_version(registry, version, models_dir=tmp_path / "models"), files)


def test_sixteen_writers_through_a_bad_network_have_one_winner_a_key(proxy: HarmfulProxy, store: S3Store) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    randomness = random.Random(seed)
    harms = ["", "", "", "drop-before", "drop-after", "503 SlowDown", "409 ConditionalRequestConflict"]
    proxy.reset(lambda number, method, path: randomness.choice(harms) if number < 300 else "")

    def create(writer: int) -> list[int]:
        won = []
        for number in range(6):
            try:
                store.create(f"race/{number}", f"writer {writer}".encode())
                won.append(number)
            except AlreadyExistsError:
                continue
        return won

    with ThreadPoolExecutor(16) as pool:
        won = dict(enumerate(pool.map(create, range(16))))
    winners = sorted((number, writer) for writer, numbers in won.items() for number in numbers)
    assert [number for number, _ in winners] == list(range(6))
    for number, writer in winners:
        assert read_bytes(store, f"race/{number}", max_bytes=100) == f"writer {writer}".encode()

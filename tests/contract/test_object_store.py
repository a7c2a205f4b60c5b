"""What every object store must do; each test runs over each kind of store that is at hand."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artifact_sync.errors import AlreadyExistsError, InputError, IntegrityError, NotFoundError
from artifact_sync.store import ObjectInfo, ObjectStore, read_bytes
from artifact_sync.store_race import race_store

MANY_KEYS = 2_000
LARGE_BYTES = 33 * 1024 * 1024 + 1
CHILD = """
import json, sys
from artifact_sync.errors import AlreadyExistsError
from artifact_sync.settings import StoreSettings, open_store
store = open_store(StoreSettings(**json.loads(sys.argv[1])))
name, rounds = sys.argv[2], int(sys.argv[3])
sys.stdin.readline()
won = []
for number in range(rounds):
    try:
        store.create(f"race/{number}", name.encode())
        won.append(number)
    except AlreadyExistsError:
        pass
print(json.dumps(won))
"""


@pytest.fixture
def store(store_place) -> ObjectStore:
    return store_place.open()


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "weights"
    path.write_bytes(random.Random(7).randbytes(LARGE_BYTES))
    return path


def read(store: ObjectStore, key: str) -> bytes:
    return read_bytes(store, key, max_bytes=64 * 1024 * 1024)


@pytest.mark.parametrize("body", [b"", b"x", b"\0\xff\r\n" * 1000], ids=["empty", "one", "binary"])
def test_what_was_created_is_read_back(store: ObjectStore, tmp_path: Path, body: bytes) -> None:
    source = tmp_path / "body"
    source.write_bytes(body)
    store.create("m/from-bytes", body)
    store.create("m/from-file", source)
    assert read(store, "m/from-bytes") == read(store, "m/from-file") == body
    assert list(store.list("m/")) == [
        ObjectInfo(key="m/from-bytes", size_bytes=len(body)),
        ObjectInfo(key="m/from-file", size_bytes=len(body)),
    ]


def test_a_large_file_arrives_whole(store: ObjectStore, large_file: Path) -> None:
    with large_file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    store.create("m/large", large_file, sha256=digest)
    with store.open("m/large") as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == digest
    assert list(store.list("m/")) == [ObjectInfo(key="m/large", size_bytes=LARGE_BYTES)]
    with pytest.raises(AlreadyExistsError):
        store.create("m/large", large_file)


def test_a_key_is_created_once(store: ObjectStore, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    store.create("m/versions/000001.json", b"first")
    for body in (b"second", b"first", b"", other):
        with pytest.raises(AlreadyExistsError, match=r"m/versions/000001\.json exists already"):
            store.create("m/versions/000001.json", body)
    assert read(store, "m/versions/000001.json") == b"first"


def test_a_deleted_key_can_be_created_anew(store: ObjectStore) -> None:
    store.create("a/b/c", b"1")
    store.delete("a/b/c")
    with pytest.raises(NotFoundError):
        store.open("a/b/c")
    assert list(store.list("")) == []
    store.create("a/b/c", b"2")
    assert read(store, "a/b/c") == b"2"


def test_a_missing_key_is_told_and_deleting_it_is_no_error(store: ObjectStore) -> None:
    store.create("a/b", b"1")
    for key in ("a/c", "a", "z/z"):
        with pytest.raises(NotFoundError, match=key):
            store.open(key)
        store.delete(key)
    assert read(store, "a/b") == b"1"


def test_replace_creates_and_overwrites(store: ObjectStore) -> None:
    for body in (b"1", b"", b"longer than before", b"2"):
        store.replace("m/metadata/timestamp.json", body)
        assert read(store, "m/metadata/timestamp.json") == body
    assert [info.key for info in store.list("")] == ["m/metadata/timestamp.json"]


def test_a_body_that_is_not_what_its_digest_says_is_never_visible(
    store: ObjectStore, tmp_path: Path, large_file: Path
) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"changed since")
    digest = hashlib.sha256(b"as it was").hexdigest()
    for body in (b"changed since", small, large_file):
        with pytest.raises(IntegrityError, match="was not stored"):
            store.create("m/blob", body, sha256=digest)
    assert list(store.list("")) == []
    store.create("m/blob", b"as it was", sha256=digest)
    assert read(store, "m/blob") == b"as it was"


def test_a_local_file_that_cannot_be_read_is_told(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such-file"):
        store.create("m/blob", tmp_path / "no-such-file")
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    "key",
    ["A-Z.a_z=0+9", "_", "0", "a.b.c", "m/feedback/2026-11-20/ab=.json", "x" * 255, "/".join("abcdefghij" * 3), "a..b"],
)
def test_odd_but_plain_keys_work(store: ObjectStore, key: str) -> None:
    store.create(key, b"body")
    assert read(store, key) == b"body"
    assert [info.key for info in store.list(key)] == [key]
    store.delete(key)
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "..",
        "a/../b",
        ".hidden",
        "a/.b",
        "a b",
        "a\nb",
        "a\n",
        "ä",
        "a\\b",
        "a*",
        "x" * 256,
    ],
)
def test_keys_that_are_not_plain_are_refused_by_each_method(store: ObjectStore, key: str) -> None:
    for method in (store.open, store.delete, lambda key: store.create(key, b""), lambda key: store.replace(key, b"")):
        with pytest.raises(InputError, match="key refused"):
            method(key)
    if key not in {"", "a/"}:
        with pytest.raises(InputError, match="key refused"):
            list(store.list(key))


def test_listing_is_in_the_order_of_code_points_and_by_prefix(store: ObjectStore) -> None:
    keys = ["a+b", "a-b/c", "a-c", "a.b", "a0", "aB/x", "a_b", "ab/c", "ab/d/e", "b", "B"]
    for key in random.Random(1).sample(keys, len(keys)):
        store.create(key, key.encode())
    assert [info.key for info in store.list("")] == sorted(keys)
    assert [info.key for info in store.list("a")] == sorted(key for key in keys if key.startswith("a"))
    assert [info.key for info in store.list("ab/")] == ["ab/c", "ab/d/e"]
    assert [info.key for info in store.list("ab/d")] == ["ab/d/e"]
    assert [info.key for info in store.list("a-b")] == ["a-b/c"]
    assert list(store.list("c")) == list(store.list("a/b/c/d")) == []
    assert all(info.size_bytes == len(info.key) for info in store.list(""))


def test_a_listing_of_many_keys_is_complete(store_place) -> None:
    store = store_place.open()
    # A listing has pages of 1,000; moto is a slow server.
    many = 1_100 if store_place.name == "moto" else MANY_KEYS
    keys = [f"m/feedback/{number % 7}/{number:06d}.json" for number in range(many)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.replace(key, b"x"), keys))
    assert [info.key for info in store.list("m/feedback/")] == sorted(keys)
    assert [info.key for info in store.list("m/feedback/3/")] == sorted(key for key in keys if "/3/" in key)


def test_a_stream_is_read_in_any_pieces(store: ObjectStore) -> None:
    body = random.Random(3).randbytes(700_000)
    store.create("m/blob", body)
    with store.open("m/blob") as stream:
        pieces = [stream.read(size) for size in (1, 0, 4095, 300_000, 10_000_000, 5)]
    assert [len(piece) for piece in pieces] == [1, 0, 4095, 300_000, 395_904, 0]
    assert b"".join(pieces) == body
    with store.open("m/blob") as stream:
        assert stream.read() == body


def test_of_threads_that_create_one_key_exactly_one_wins(store: ObjectStore) -> None:
    report = race_store(store, rounds=10, contenders=6)
    assert (report.rounds, report.losses) == (10, 50)
    assert list(store.list("")) == []


def test_of_processes_that_create_one_key_exactly_one_wins(store_place) -> None:
    names = [f"process-{number}" for number in range(4)]
    won = _race_processes(store_place.settings.model_dump_json(), names, rounds=10)
    winners = {number: name for name, numbers in won.items() for number in numbers}
    assert sum(len(numbers) for numbers in won.values()) == len(winners) == 10
    store = store_place.open()
    assert {number: read(store, f"race/{number}").decode() for number in range(10)} == winners


def _race_processes(settings: str, names: list[str], *, rounds: int) -> dict[str, list[int]]:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, settings, name, str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    with ThreadPoolExecutor(len(children)) as pool:
        outputs = list(pool.map(lambda child: child.communicate("go\n")[0], children))
    assert [child.returncode for child in children] == [0] * len(children)
    return {name: json.loads(output) for name, output in zip(names, outputs, strict=True)}


def test_readers_see_the_old_or_the_new_but_never_a_mixture(store: ObjectStore) -> None:
    bodies = {bytes([65 + number]) * (50_000 + 20_000 * number) for number in range(5)}
    store.replace("m/timestamp.json", min(bodies))
    done = threading.Event()

    def read_until_done() -> set[bytes]:
        seen = set()
        while not done.is_set():
            seen.add(read(store, "m/timestamp.json"))
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read_until_done) for _ in range(3)]
        for body in sorted(bodies) * 8:
            store.replace("m/timestamp.json", body)
        done.set()
        seen = set().union(*(reader.result() for reader in readers))
    assert seen <= bodies
    assert seen

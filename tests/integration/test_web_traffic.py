"""Canary and shadow end to end: a signed release, a model server with three versions, a front end as a process."""

from __future__ import annotations

import http.client
import io
import json
import math
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact_sync.records import InputContract, RunRecord, TrafficShare
from serving.model_server import GrpcModelServer, ModelConfig, VersionState
from serving.traffic.observation import ShadowTraffic, TrafficReport
from serving.traffic.routing import CANARY, is_copied, version_label

PROCESS = Path(__file__).parents[1] / "front_end_process.py"
USERS = [f"user-{number}" for number in range(400)]
STABLE_VERSION, CANARY_VERSION, SHADOW_VERSION = 1, 2, 3
THRESHOLDS = {STABLE_VERSION: 0.5, CANARY_VERSION: 0.5, SHADOW_VERSION: 0.7}
LABELS = {STABLE_VERSION: ("dark", "light"), CANARY_VERSION: ("night", "day", "fog"), SHADOW_VERSION: ("light", "dark")}
CONTRACTS = {
    STABLE_VERSION: InputContract(height=8, width=8, channels=1),
    CANARY_VERSION: InputContract(height=6, width=10, channels=3),
    SHADOW_VERSION: InputContract(height=5, width=5, channels=3),
}
BRIGHTNESS = (40, 150, 230)
"""Dark for both, light for the stable version and dark for the shadow, light for both."""


def threshold_model(path: Path, version: int) -> None:
    """Write a version for which a photo is light above its threshold; further labels never win."""
    import tensorflow as tf

    contract, labels, threshold = CONTRACTS[version], LABELS[version], THRESHOLDS[version]
    light = np.array([{"light": 1.0, "day": 1.0}.get(label, -1.0) for label in labels], np.float32)
    never = np.array([-50.0 if label == "fog" else 0.0 for label in labels], np.float32)

    class Threshold(tf.Module):
        def __init__(self) -> None:
            self.light = tf.Variable(light * 10.0)

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, contract.height, contract.width, contract.channels], tf.uint8, name="pixels")
            ]
        )
        def classify(self, pixels):
            brightness = tf.reduce_mean(tf.cast(pixels, tf.float32), axis=[1, 2, 3]) / 255.0
            return {"probabilities": tf.nn.softmax((brightness - threshold)[:, None] * self.light + never)}

    module = Threshold()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.classify})


def distance(brightness: int) -> float:
    """Return how far the stable version and the shadow lie apart for a photo of one brightness."""
    light = [
        1 / (1 + math.exp(-20 * (brightness / 255 - THRESHOLDS[version])))
        for version in (STABLE_VERSION, SHADOW_VERSION)
    ]
    return abs(light[0] - light[1])


class ThresholdSite:
    """A signed bucket with three approved versions, whose records say what the models above take and give."""

    def __init__(self, signed_site: type, path: Path) -> None:
        class Site(signed_site):
            def _run_record(self, run_id: str, trained_by: str) -> RunRecord:
                version = int(run_id.removeprefix("run-"))
                changes = {"labels": LABELS[version], "input_contract": CONTRACTS[version]}
                return super()._run_record(run_id, trained_by).model_copy(update=changes)

        self.site = Site(path).initialise()
        for version in CONTRACTS:
            assert self.site.promote(self.site.approved_run(f"run-{version}")).version.version == version
        (path / "root.json").write_bytes(self.site.root_bytes)

    def release(self, *, canary_percent: float | None, shadow_percent: float | None = None) -> None:
        """Publish version 1 with shares for the two others."""
        publisher = self.site.publisher()
        view = publisher.view()
        latest = view.latest_release()
        shares = [
            None if percent is None else TrafficShare(version=version, percent=percent)
            for version, percent in ((CANARY_VERSION, canary_percent), (SHADOW_VERSION, shadow_percent))
        ]
        changes = {
            "number": latest.number + 1,
            "stable": STABLE_VERSION,
            "canary": shares[0],
            "shadow": shares[1],
            "previous_sha256": view.release_sha256(latest.number),
        }
        publisher.publish_release(latest.model_copy(update=changes), now=self.site.now)


@pytest.fixture(scope="module")
def models_path(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("photos")
    for version in CONTRACTS:
        threshold_model(base / str(version), version)
    return base


@contextmanager
def until_ended(*command: str) -> Iterator[str]:
    """Run a program; yield the first line that it prints, and end it with the block."""
    # Its log goes to a file: nobody would read a pipe, and a full one stops the program.
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            line = process.stdout.readline().strip()
            assert line, "it ended before it was ready"
            yield line
        except BaseException:
            log.seek(0)
            print("".join(line for line in log if '"level": "info"' not in line)[-5000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.communicate()


class Served:
    """The model server, as its agent would move it."""

    def __init__(self, address: str, models_path: Path) -> None:
        self.address = address
        self._models_path = models_path
        self._client = GrpcModelServer(address)

    def __enter__(self) -> Served:
        self.point({})
        while sum(entry.state is VersionState.AVAILABLE for entry in self._client.status("photos")) < 3:
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def point(self, labels: dict[str, int]) -> None:
        """Make exactly these labels."""
        config = ModelConfig("photos", str(self._models_path), tuple(CONTRACTS), labels)
        self._client.reload((config,), timeout_seconds=60)


@pytest.fixture
def served(models_path: Path, tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "models.config").write_text("model_config_list {}\n")
    flags = ("--port=0", f"--model_config_file={tmp_path / 'models.config'}")
    with until_ended("-m", "serving.embedded_server", *flags) as ready:
        address = dict(word.split("=", 1) for word in ready.split()[1:])["grpc"]
        with Served(address, models_path) as server:
            yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class FrontEnd:
    """A front end that runs, and what it answers."""

    def __init__(self, address: str, metrics_address: str) -> None:
        self._host = address.removeprefix("http://")
        self._metrics_address = metrics_address

    def ask_all(self, users: list[str]) -> dict[str, dict]:
        """Let each user send one photo, a few of them at a time; return the answers, all with status 200."""
        with ThreadPoolExecutor(4) as threads:
            return dict(threads.map(self._ask, users))

    def versions(self, users: list[str]) -> dict[str, int]:
        return {user: answer["version"] for user, answer in self.ask_all(users).items()}

    def report(self) -> TrafficReport:
        with urllib.request.urlopen(f"http://{self._metrics_address}/traffic", timeout=30) as answer:
            return TrafficReport.from_json(answer.read())

    def wait_for_copies(self, count: int) -> ShadowTraffic:
        """Wait until so many copies came to an end, and return what was counted."""
        while True:
            shadow = self.report().shadow(SHADOW_VERSION)
            if shadow is not None and shadow.compared + shadow.failed + shadow.dropped >= count:
                return shadow
            time.sleep(0.05)

    def wait_for_release(self, canary: str) -> None:
        """Wait until the release with this canary is known here."""
        while True:
            connection = http.client.HTTPConnection(self._host, timeout=30)
            connection.request("GET", "/readyz")
            document = json.load(connection.getresponse())
            connection.close()
            if document["checks"]["catalog"]["detail"].endswith(canary):
                return
            time.sleep(0.05)

    def _ask(self, user: str) -> tuple[str, dict]:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        headers = {"Content-Type": "image/png", "X-Liftgate-User": user}
        connection.request("POST", "/api/v1/classify", body=PHOTOS[brightness_of(user)], headers=headers)
        answer = connection.getresponse()
        document = json.load(answer)
        connection.close()
        assert answer.status == 200, document
        return user, document


@contextmanager
def front_end(folder: Path, served: Served) -> Iterator[FrontEnd]:
    metrics_address = f"127.0.0.1:{free_port()}"
    with until_ended(str(PROCESS), str(folder), served.address, metrics_address) as address:
        yield FrontEnd(address, metrics_address)


def png(brightness: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 16), (brightness,) * 3).save(stream, "png")
    return stream.getvalue()


PHOTOS = {brightness: png(brightness) for brightness in BRIGHTNESS}


def brightness_of(user: str) -> int:
    return BRIGHTNESS[int(user.removeprefix("user-")) % 3]


def expected_versions(percent: float) -> dict[str, int]:
    in_canary = {user for user in USERS if version_label(user, percent, "photos") == CANARY}
    return {user: CANARY_VERSION if user in in_canary else STABLE_VERSION for user in USERS}


def binomial_bounds(count: int, share: float, *, once_in: float = 1e6) -> tuple[int, int]:
    """Return between which numbers a share of draws lies but once in a million times, from the exact tails."""
    weights = [math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
    tail = 0.5 / once_in
    low = next(k for k in range(count + 1) if sum(weights[: k + 1]) > tail)
    high = next(k for k in range(count, -1, -1) if sum(weights[k:]) > tail)
    return low, high


def test_users_stay_with_their_version_over_restarts_and_a_larger_share_only_adds_some(
    memory_path, signed_site, served
):
    site = ThresholdSite(signed_site, memory_path)
    site.release(canary_percent=5.0)
    served.point({"stable": STABLE_VERSION, "canary": CANARY_VERSION})
    with front_end(memory_path, served) as first:
        at_five = first.versions(USERS)
        low, high = binomial_bounds(len(USERS), 0.05)
        assert low <= list(at_five.values()).count(CANARY_VERSION) <= high
        assert {entry.version: entry.requests for entry in first.report().versions} == {
            version: list(at_five.values()).count(version) for version in (STABLE_VERSION, CANARY_VERSION)
        }
    with front_end(memory_path, served) as second:
        assert second.versions(USERS) == at_five
        site.release(canary_percent=20.0)
        second.wait_for_release("version 2 for 20 %")
        at_twenty = second.versions(USERS)
    low, high = binomial_bounds(len(USERS), 0.2)
    assert low <= list(at_twenty.values()).count(CANARY_VERSION) <= high
    assert {user for user in USERS if at_five[user] == CANARY_VERSION} < {
        user for user in USERS if at_twenty[user] == CANARY_VERSION
    }
    assert (at_five, at_twenty) == (expected_versions(5.0), expected_versions(20.0))


def test_a_canary_that_is_taken_back_or_not_there_yet_costs_nobody_an_answer(memory_path, signed_site, served):
    site = ThresholdSite(signed_site, memory_path)
    site.release(canary_percent=50.0)
    served.point({"stable": STABLE_VERSION})
    with front_end(memory_path, served) as running:
        # A host that has not loaded it yet.
        assert set(running.versions(USERS[:100]).values()) == {STABLE_VERSION}
        inside = sum(version == CANARY_VERSION for version in list(expected_versions(50.0).values())[:100])
        assert running.report().version(CANARY_VERSION).fallbacks == inside
        served.point({"stable": STABLE_VERSION, "canary": CANARY_VERSION})
        with ThreadPoolExecutor(1) as moving:
            # Labels go and come while people ask; every answer must be one (ask_all looks at each status).
            moved = moving.submit(
                lambda: [
                    (served.point({"stable": STABLE_VERSION} | canary), time.sleep(0.02))
                    for canary in [{}, {"canary": CANARY_VERSION}] * 20
                ]
            )
            answers = running.ask_all(USERS)
            moved.result()
        labels = {answer["version"]: {entry["label"] for entry in answer["top"]} for answer in answers.values()}
        assert labels == {version: set(LABELS[version]) for version in (STABLE_VERSION, CANARY_VERSION)}
        report = running.report()
        assert [entry.errors for entry in report.versions] == [0, 0]
        assert sum(entry.requests for entry in report.versions) == 100 + len(USERS)
        assert report.version(CANARY_VERSION).fallbacks > inside
        # Everybody has the version of before, once it is back for good.
        assert running.versions(USERS) == expected_versions(50.0)


def test_a_share_of_requests_is_copied_compared_and_counted(memory_path, signed_site, served):
    site = ThresholdSite(signed_site, memory_path)
    site.release(canary_percent=None, shadow_percent=30.0)
    served.point({"stable": STABLE_VERSION, "shadow": SHADOW_VERSION})
    with front_end(memory_path, served) as running:
        answers = running.ask_all(USERS)
        assert {answer["version"] for answer in answers.values()} == {STABLE_VERSION}
        copied = [user for user, answer in answers.items() if is_copied(answer["request_id"], 30.0, "photos")]
        low, high = binomial_bounds(len(USERS), 0.3)
        assert low <= len(copied) <= high
        shadow = running.wait_for_copies(len(copied))
        assert shadow.agreed == sum(brightness_of(user) != BRIGHTNESS[1] for user in copied)
        assert (shadow.failed, shadow.dropped) == (0, 0)
        distances = [distance(brightness_of(user)) for user in copied]
        assert shadow.score_distance_sum == pytest.approx(sum(distances), rel=1e-3)
        assert shadow.score_distance_max == pytest.approx(max(distances), rel=1e-3)
        # The version that nobody sees goes away; nobody sees that either.
        served.point({"stable": STABLE_VERSION})
        again = running.ask_all(USERS[:60])
        failed = sum(is_copied(answer["request_id"], 30.0, "photos") for answer in again.values())
        after = running.wait_for_copies(len(copied) + failed)
        assert (after.compared, after.failed, after.dropped) == (len(copied), failed, 0)
        report = running.report()
        assert [entry.errors for entry in report.versions] == [0]
        with urllib.request.urlopen(f"http://{running._metrics_address}/metrics", timeout=30) as answer:
            assert f'shadow_agreed_total{{model="photos",front_end="front-1",version="3"}} {shadow.agreed}\n' in (
                answer.read().decode()
            )


@pytest.fixture(scope="module")
def signed_site() -> type:
    """The type of tests/signed_site.py."""
    import importlib.util

    name = "signed_site"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, PROCESS.parent / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name].SignedSite

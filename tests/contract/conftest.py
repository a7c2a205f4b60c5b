"""Places for object stores: each is a store that exists for real while the tests run."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from artifact_sync.settings import StoreSettings, open_store
from artifact_sync.store import ObjectStore
from liftgate.local_s3 import LocalS3

# Kept before the settings of the person who runs the tests are removed from the environment.
_RGW = {name: os.environ[name] for name in os.environ if name.startswith("LIFTGATE_TEST_RGW_")}


@dataclass(frozen=True)
class StorePlace:
    """An empty place in a real store, and what a process needs to open it."""

    name: str
    settings: StoreSettings
    environment: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> ObjectStore:
        return open_store(self.settings)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    with LocalS3(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["directory", "seaweedfs", "moto", "rgw"])
def store_place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorePlace:
    """An empty place in each kind of store."""
    if request.param == "directory":
        return StorePlace(name="directory", settings=StoreSettings(url=f"dir:{tmp_path / 'store'}"))
    place = _s3_place(request)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return place


def _s3_place(request: pytest.FixtureRequest) -> StorePlace:
    prefix = f"tests/{secrets.token_hex(8)}"
    if request.param == "seaweedfs":
        server = request.getfixturevalue("seaweedfs")
        settings = StoreSettings(url=f"s3://{server.bucket}/{prefix}", endpoint_url=server.endpoint_url)
        return StorePlace(name="seaweedfs", settings=settings, environment=server.environment)
    if request.param == "moto":
        endpoint = request.getfixturevalue("moto_endpoint")
        environment = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        _make_bucket(endpoint, environment)
        settings = StoreSettings(url=f"s3://models/{prefix}", endpoint_url=endpoint)
        return StorePlace(name="moto", settings=settings, environment=environment)
    if "LIFTGATE_TEST_RGW_ENDPOINT" not in _RGW:
        pytest.skip("LIFTGATE_TEST_RGW_ENDPOINT, _ACCESS_KEY and _SECRET_KEY name no Ceph RGW")
    endpoint = _RGW["LIFTGATE_TEST_RGW_ENDPOINT"]
    environment = {
        "AWS_ACCESS_KEY_ID": _RGW["LIFTGATE_TEST_RGW_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": _RGW["LIFTGATE_TEST_RGW_SECRET_KEY"],
    }
    _make_bucket(endpoint, environment)
    settings = StoreSettings(url=f"s3://models/{prefix}", endpoint_url=endpoint)
    return StorePlace(name="rgw", settings=settings, environment=environment)


def _make_bucket(endpoint_url: str, environment: Mapping[str, str]) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="models")
    client.close()

"""A whole front end in one process, with a model server that computes its answers from the pixels."""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from artifact_sync.clock import ManualClock
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import ModelServerError, ModelServerUnavailableError, NotFoundError
from artifact_sync.records import InputContract
from artifact_sync.registry import Registry
from serving.decode_pool import DecodePool
from serving.model_server import ModelSignature, Prediction
from web.app import create_app
from web.catalog import ModelCard
from web.corrections import CorrectionStore
from web.database import Database, open_database
from web.receipts import ReceiptStore
from web.settings import WebSettings

TESTS = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    """Load tests/<name>.py: with importmode=importlib the tests folder is on no path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def photo_tools() -> ModuleType:
    """The module tests/photo_corpus.py."""
    return load("photo_corpus")


@pytest.fixture(scope="session")
def signed_site_type() -> type:
    """A signed bucket, as the trust tests use it."""
    return load("signed_site").SignedSite


SMALL = ModelCard(42, ("cat", "dog", "fish & <chips>"), InputContract(height=32, width=32, channels=3))
LARGE = ModelCard(43, ("cat", "dog", "fish & <chips>", "bird"), InputContract(height=48, width=64, channels=1))


class ColourServer:
    """Serves `stable`; scores follow the brightness, and pixels of another shape are refused as the real one does."""

    def __init__(self) -> None:
        self.stable = SMALL
        self.failure: Exception | None = None
        self.scores: list[float] | None = None
        self.predictions = 0

    def predict(self, model, pixels, *, version=None, label=None, timeout_seconds=10.0):
        assert label == "stable"
        self.predictions += 1
        if self.failure is not None:
            raise self.failure
        contract = self.stable.contract
        assert pixels.dtype == np.uint8
        if pixels.shape != (1, contract.height, contract.width, contract.channels):
            raise ModelServerError(f"shape {pixels.shape} is not the signature's")
        weights = self.scores or list(np.linspace(1, 2 + pixels.mean() / 255, len(self.stable.labels)) ** 2)
        scores = np.array([weights], dtype=np.float32)
        return Prediction(scores if self.scores else scores / scores.sum(), self.stable.version)

    def signature(self, model, *, version=None, label=None):
        if isinstance(self.failure, ModelServerUnavailableError):
            raise self.failure
        return ModelSignature(self.stable.version, {}, {})

    def status(self, model):
        return ()

    def reload(self, configs, *, timeout_seconds):
        raise AssertionError("the front end never reloads a server")


@dataclass
class Cards:
    """A catalogue of two versions whose newest release is `released`."""

    released: ModelCard | None = SMALL
    known: dict[int, ModelCard] = field(default_factory=lambda: {42: SMALL, 43: LARGE})

    def current(self) -> ModelCard:
        if self.released is None:
            raise NotFoundError("Model photos has no release yet.")
        return self.released

    def card(self, version: int) -> ModelCard:
        if version not in self.known:
            raise NotFoundError(f"photos has no signed version {version}")
        return self.known[version]


@dataclass
class FrontEnd:
    """The application and all that it was given."""

    app: Flask
    server: ColourServer
    catalog: Cards
    database: Database
    receipts: ReceiptStore
    corrections: CorrectionStore
    registry: Registry
    clock: ManualClock

    @property
    def client(self) -> FlaskClient:
        """A browser or program without cookies."""
        return self.app.test_client()


@pytest.fixture(scope="session")
def decode_pool() -> Iterator[DecodePool]:
    """One pool for all tests: it holds nothing between photos."""
    with DecodePool(workers=2) as pool:
        yield pool


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder where nothing waits for a disk: what is tested survives kill -9, not a power cut."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture
def front_end(memory_path: Path, decode_pool: DecodePool) -> Iterator[FrontEnd]:
    """A front end over SQLite and a directory that stands for the bucket."""
    database = open_database(f"sqlite:///{memory_path / 'web.sqlite3'}")
    clock = ManualClock(datetime(2026, 11, 20, 6, 0, tzinfo=UTC))
    server, catalog = ColourServer(), Cards()
    app = create_app(
        WebSettings(data_dir=memory_path, max_upload_bytes=2_000_000, instance_name="front-1"),
        model="photos",
        secret_key=b"k" * 32,
        model_server=server,
        catalog=catalog,
        decode_pool=decode_pool,
        database=database,
        clock=clock,
    )
    yield FrontEnd(
        app=app,
        server=server,
        catalog=catalog,
        database=database,
        receipts=ReceiptStore(database),
        corrections=CorrectionStore(database),
        registry=Registry(DirectoryStore(memory_path / "bucket"), model="photos"),
        clock=clock,
    )
    database.close()


@pytest.fixture(scope="session")
def photo(photo_tools: ModuleType) -> bytes:
    """A JPEG that was taken at a secret place."""
    return photo_tools.encoded(photo_tools.picture(120, 90), exif=photo_tools.exif(6, secret=True))


@pytest.fixture(scope="session")
def hidden_fields():
    """Return the hidden fields of a page's form, as a browser sends them."""

    def fields(page: str) -> dict[str, str]:
        return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))

    return fields

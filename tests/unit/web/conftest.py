"""A whole front end in one process, with a model server that computes its answers from the pixels."""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
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
from artifact_sync.records import InputContract, TrafficShare
from artifact_sync.registry import Registry
from serving.decode_pool import DecodePool
from serving.model_server import ModelSignature, Prediction, VersionMissingError
from serving.traffic.recorder import TrafficRecorder
from serving.traffic.routing import TrafficSplit
from web.app import create_app
from web.catalog import ModelCard
from web.corrections import CorrectionStore
from web.database import Database, open_database
from web.receipts import ReceiptStore
from web.settings import WebSettings
from web.shadowing import Shadowing, ShadowLimits

TESTS = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    """Load tests/<name>.py: with importmode=importlib the tests folder is on no path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def signed_site_type() -> type:
    """A signed bucket, as the trust tests use it."""
    return load("signed_site").SignedSite


SMALL = ModelCard(42, ("cat", "dog", "fish & <chips>"), InputContract(height=32, width=32, channels=3))
LARGE = ModelCard(43, ("cat", "dog", "fish & <chips>", "bird"), InputContract(height=48, width=64, channels=1))


class ColourServer:
    """Serves labels; scores follow the brightness, and pixels of another shape are refused as the real one does."""

    def __init__(self) -> None:
        self.labels: dict[str, ModelCard] = {"stable": SMALL}
        self.failures: dict[str, Exception] = {}
        self.failure: Exception | None = None
        self.scores: dict[str, list[float]] = {}
        self.asked: list[str] = []
        self.on_predict: Callable[[str], None] = lambda label: None

    @property
    def stable(self) -> ModelCard:
        """What the label "stable" points at."""
        return self.labels["stable"]

    @stable.setter
    def stable(self, card: ModelCard) -> None:
        self.labels["stable"] = card

    @property
    def predictions(self) -> int:
        """How often it was asked to predict."""
        return len(self.asked)

    def predict(self, model, pixels, *, version=None, label=None, timeout_seconds=10.0):
        self.asked.append(label)
        self.on_predict(label)
        card = self._card(label)
        contract = card.contract
        assert pixels.dtype == np.uint8
        if pixels.shape != (1, contract.height, contract.width, contract.channels):
            raise ModelServerError(f"shape {pixels.shape} is not the signature's")
        given = self.scores.get(label)
        weights = given or list(np.linspace(1, 2 + pixels.mean() / 255, len(card.labels)) ** 2)
        scores = np.array([weights], dtype=np.float32)
        return Prediction(scores if given else scores / scores.sum(), card.version)

    def signature(self, model, *, version=None, label=None):
        if isinstance(self.failure, ModelServerUnavailableError):
            raise self.failure
        if label not in self.labels:
            raise VersionMissingError(f"Unrecognized servable version label: {label}")
        return ModelSignature(self.labels[label].version, {}, {})

    def _card(self, label: str) -> ModelCard:
        failure = self.failure or self.failures.get(label)
        if failure is not None:
            raise failure
        if label not in self.labels:
            raise VersionMissingError(f"Unrecognized servable version label: {label}")
        return self.labels[label]

    def status(self, model):
        return ()

    def reload(self, configs, *, timeout_seconds):
        raise AssertionError("the front end never reloads a server")


@dataclass
class Cards:
    """A catalogue of two versions whose newest release is `released`."""

    released: ModelCard | None = SMALL
    known: dict[int, ModelCard] = field(default_factory=lambda: {42: SMALL, 43: LARGE})
    canary: TrafficShare | None = None
    shadow: TrafficShare | None = None

    def split(self) -> TrafficSplit:
        if self.released is None:
            raise NotFoundError("Model photos has no release yet.")
        return TrafficSplit(self.released.version, canary=self.canary, shadow=self.shadow)

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
    recorder: TrafficRecorder
    shadowing: Shadowing
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
    recorder = TrafficRecorder(model="photos", front_end="front-1", clock=clock)
    # Not opened: tests of copies open it, for all others it drops them.
    shadowing = Shadowing(
        "photos",
        model_server=server,
        catalog=catalog,
        recorder=recorder,
        photo_limits=decode_pool.limits,
        limits=ShadowLimits(workers=1, max_waiting=4, timeout_seconds=5.0),
    )
    app = create_app(
        WebSettings(data_dir=memory_path, max_upload_bytes=2_000_000, instance_name="front-1"),
        model="photos",
        secret_key=b"k" * 32,
        model_server=server,
        catalog=catalog,
        decode_pool=decode_pool,
        database=database,
        recorder=recorder,
        clock=clock,
        shadowing=shadowing,
    )
    yield FrontEnd(
        app=app,
        server=server,
        catalog=catalog,
        database=database,
        receipts=ReceiptStore(database),
        corrections=CorrectionStore(database),
        registry=Registry(DirectoryStore(memory_path / "bucket"), model="photos"),
        recorder=recorder,
        shadowing=shadowing,
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

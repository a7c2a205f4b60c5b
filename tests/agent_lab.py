"""A bucket with signed releases, a serving host, and a model server in memory, for tests of the agent.

`MemoryModelServer` has TensorFlow Serving's rules of directories, versions and labels and none of
its arithmetic; what it would compute is a function of one number in the export.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from artifact_sync.clock import ManualClock
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import ModelServerError, ModelServerUnavailableError, StoreError
from artifact_sync.manifest import build_manifest, find_differences
from artifact_sync.push import push_export
from artifact_sync.records import (
    Acknowledgement,
    Evidence,
    GoldenExample,
    GoldenExamples,
    InputContract,
    Lineage,
    Manifest,
    ReleaseRecord,
    TrafficShare,
    VersionRecord,
)
from artifact_sync.registry import Registry
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH
from artifact_sync.trust.ceremony import initialise_trust
from artifact_sync.trust.keys import KeyFile
from artifact_sync.trust.proposal import propose_version
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.reader import TrustedReader
from artifact_sync.trust.roles import Roles
from serving.agent import Agent
from serving.memory_budget import MemoryReading, needed_bytes
from serving.model_server import ModelConfig, ModelSignature, Prediction, VersionState, VersionStatus
from serving.protos import tfs_pb2
from serving.settings import AgentSettings
from serving.traffic.observation import LATENCY_BOUNDS_MS, ShadowTraffic, TrafficReport, VersionTraffic
from serving.traffic_source import TrafficReading

MODEL = "shapes"
LABELS = ("circle", "square", "star")
START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
DIGEST = "0" * 64
GRAPH = "saved_model.pb"
WEIGHTS = "variables/variables.data-00000-of-00001"


def scores_of(pixels: np.ndarray, *, weight: float) -> np.ndarray:
    """What a version with that weight answers: float32 [batch, 3], rows that sum to 1."""
    mean = pixels.reshape(len(pixels), -1).mean(axis=1, keepdims=True) / 255.0
    raw = 1.0 + mean * np.array([[1.0, 2.0, 3.0]]) + weight * np.array([[0.0, 0.5, 0.25]])
    return (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


def write_export(directory: Path, *, weight: float, has_golden_examples: bool = True) -> Path:
    """Write an export whose answers `MemoryModelServer` can compute."""
    (directory / "variables").mkdir(parents=True)
    (directory / GRAPH).write_bytes(b"a graph")
    (directory / "variables" / "variables.index").write_bytes(b"an index")
    (directory / WEIGHTS).write_text(json.dumps(weight))
    if has_golden_examples:
        pixels = np.random.default_rng(7).integers(0, 256, (4, 2, 3, 1), dtype=np.uint8)
        golden = GoldenExamples(
            height=2,
            width=3,
            channels=1,
            tolerance=0.001,
            examples=tuple(
                GoldenExample(
                    pixels_base64=base64.b64encode(image.tobytes()).decode(),
                    scores=tuple(float(score) for score in row),
                )
                for image, row in zip(pixels, scores_of(pixels, weight=weight), strict=True)
            ),
        )
        (directory / GOLDEN_EXAMPLES_PATH).parent.mkdir()
        (directory / GOLDEN_EXAMPLES_PATH).write_bytes(golden.to_json())
    return directory


def version_record(version: int, manifest: Manifest) -> VersionRecord:
    """Return a record around a manifest."""
    return VersionRecord(
        model=MODEL,
        version=version,
        manifest=manifest,
        lineage=Lineage(
            run_id=f"run-{version}",
            code_commit="c" * 40,
            code_dirty=False,
            config_sha256=DIGEST,
            data_manifest_sha256=DIGEST,
            trained_by="sam",
            trained_at=START,
        ),
        input_contract=InputContract(height=2, width=3, channels=1),
        labels=LABELS,
        evidence=Evidence(
            report_sha256=DIGEST,
            verdict_sha256=DIGEST,
            policy_sha256=DIGEST,
            holdout_sha256=DIGEST,
            champion_version=None,
        ),
        created_at=START,
    )


def release_record(
    number: int,
    stable: int,
    *,
    canary: int | None = None,
    shadow: int | None = None,
    kind: str = "promotion",
    previous: str | None = None,
) -> ReleaseRecord:
    """Return a release of one stable version, and perhaps a canary and a shadow."""
    return ReleaseRecord(
        model=MODEL,
        number=number,
        kind=kind,
        stable=stable,
        canary=TrafficShare(version=canary, percent=5.0) if canary is not None else None,
        shadow=TrafficShare(version=shadow, percent=5.0) if shadow is not None else None,
        reason="because",
        by="sam",
        previous_sha256=previous,
        created_at=START,
    )


@dataclass
class MemoryModelServer:
    """A ModelServer in this process.

    Args:
        broken: version → error with which its load ends.
        stuck: versions that stay LOADING for ever.
        nan: versions that answer NaN. `skewed`: versions that answer something else than they should.
        milliseconds: version → what an answer of it takes on `clock`.
        may_be_empty: whether the label "stable" may be taken away, as a swap does.
        dies_at: the name of the call at which the process ends, once.
        truth: manifests to hold every loaded directory against.
    """

    broken: dict[int, str] = field(default_factory=dict)
    stuck: set[int] = field(default_factory=set)
    nan: set[int] = field(default_factory=set)
    skewed: set[int] = field(default_factory=set)
    milliseconds: dict[int, float] = field(default_factory=dict)
    clock: Any = None
    may_be_empty: bool = False
    dies_at: str = ""
    is_down: bool = False
    truth: dict[int, Manifest] = field(default_factory=dict)
    config: ModelConfig | None = None
    weights: dict[int, float] = field(default_factory=dict)
    states: dict[int, VersionStatus] = field(default_factory=dict)
    retired: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    reloads: list[tuple[ModelConfig, ...]] = field(default_factory=list)

    # The protocol.

    def predict(self, model, pixels, *, version=None, label=None, timeout_seconds=10.0):
        self._called("predict")
        chosen = self._choose(version, label)
        if self.clock is not None and chosen in self.milliseconds:
            self.clock.sleep(self.milliseconds[chosen] / 1000.0)
        scores = scores_of(pixels, weight=self.weights[chosen] + (1.0 if chosen in self.skewed else 0.0))
        if chosen in self.nan:
            scores = scores * np.float32("nan")
        return Prediction(scores=scores, version=chosen)

    def status(self, model):
        self._called("status")
        self._advance()
        return tuple(sorted(self.states.values(), key=lambda status: -status.version))

    def signature(self, model, *, version=None, label=None):
        self._called("signature")
        return ModelSignature(version=self._choose(version, label), inputs={}, outputs={})

    def reload(self, configs, *, timeout_seconds):
        self._called("reload")
        (config,) = configs or (None,)
        is_new = self.config is None
        self._check_labels(config)
        self.reloads.append(configs)
        self.config = config
        if is_new and config is not None:
            self._advance()
            self._advance()
            ends = [s for s in self.states.values() if s.state is VersionState.END and s.error_message]
            if ends and not self.available:
                raise ModelServerError(f"1 model(s) did not become available: {ends[0].error_message}")

    # What a test does to it.

    @property
    def available(self) -> set[int]:
        return {version for version, status in self.states.items() if status.state is VersionState.AVAILABLE}

    @property
    def labels(self) -> dict[str, int]:
        """The labels that answer."""
        wanted = self.config.labels if self.config is not None and not self.is_down else {}
        return {label: version for label, version in wanted.items() if version in self.available}

    def restart(self, config_path: Path) -> None:
        """End the process and start it from its file."""
        self.is_down, self.config = False, None
        self.weights, self.states, self.retired = {}, {}, set()
        message = text_format.Parse(config_path.read_text(), tfs_pb2.ModelServerConfig())
        for entry in message.model_config_list.config:
            versions = tuple(entry.model_version_policy.specific.versions)
            self.config = ModelConfig(entry.name, entry.base_path, versions, dict(entry.version_labels))
        self._advance()
        self._advance()

    # TensorFlow Serving's rules.

    def _called(self, name: str) -> None:
        if name == self.dies_at:
            self.dies_at, self.is_down = "", True
            self.config, self.weights, self.states = None, {}, {}
        if self.is_down:
            raise ModelServerUnavailableError("the model server cannot be reached")

    def _choose(self, version, label) -> int:
        if label is not None:
            if self.config is None or label not in self.config.labels:
                raise ModelServerError(f"Unrecognized servable version label: {label}")
            version = self.config.labels[label]
        if version not in self.available:
            raise ModelServerError(f"Servable not found for request: Specific({MODEL}, {version})")
        return version

    def _check_labels(self, config: ModelConfig | None) -> None:
        before = self.config.labels if self.config is not None else {}
        labels = config.labels if config is not None else {}
        for label, version in labels.items():
            if version not in self.available and label in before:
                raise ModelServerError(
                    f"Request to assign label to version {version} of model {MODEL}, which is not currently available"
                )
        listed = set(config.versions) if config is not None else set()
        if listed - self.available and any(before.get(label, v) != v for label, v in labels.items()):
            self.faults.append(f"one configuration loads {listed - self.available} and moves a label")
        lost = set(self.labels) - set(labels)
        if lost - {"canary", "shadow"} and not self.may_be_empty:
            self.faults.append(f"label {lost} was dropped")

    def _advance(self) -> None:
        wanted = set(self.config.versions) if self.config is not None else set()
        for version in set(self.states) - wanted:
            self.retired.add(version)
            if self.states[version].state is not VersionState.END:
                self.states[version] = VersionStatus(version, VersionState.END)
                self.weights.pop(version, None)
        for version in sorted(wanted):
            self._advance_one(version)

    def _advance_one(self, version: int) -> None:
        directory = Path(self.config.base_path) / str(version)
        state = self.states.get(version, VersionStatus(version, VersionState.UNKNOWN)).state
        if state is VersionState.LOADING and version not in self.stuck:
            self._finish_loading(version, directory)
        # An ended version is tried again only after it was out of the configuration for a while.
        is_due = state is VersionState.UNKNOWN or version in self.retired
        if is_due and directory.is_dir():
            self.retired.discard(version)
            self.states[version] = VersionStatus(version, VersionState.LOADING)

    def _finish_loading(self, version: int, directory: Path) -> None:
        if version in self.truth and find_differences(directory, self.truth[version]):
            self.faults.append(f"version {version} was loaded from a directory that is not what was signed")
        if version in self.broken:
            self.states[version] = VersionStatus(version, VersionState.END, self.broken[version])
            return
        self.weights[version] = json.loads((directory / WEIGHTS).read_text())
        self.states[version] = VersionStatus(version, VersionState.AVAILABLE)


@dataclass
class MemoryForVersions:
    """What the system would say of a server in which each version takes as much as the smallest is thought to.

    Args:
        server: whose versions are counted.
        limit_versions: how many of them fit, 1.6 for one and no second.
    """

    server: Any
    limit_versions: float = 100.0

    def read(self) -> MemoryReading:
        each = needed_bytes(0, factor=1.0)
        held = sum(status.state is not VersionState.END for status in self.server.status(MODEL))
        limit = int(self.limit_versions * each)
        return MemoryReading(limit - held * each, limit, held * each, "a test's")


@dataclass
class TrafficFromTest:
    """Reports as a test sets them."""

    reports: tuple[TrafficReport, ...] = ()

    def read(self) -> TrafficReading:
        return TrafficReading(reports=self.reports)


def traffic_report(
    *versions: tuple[int, int, int],
    top: Mapping[int, Mapping[str, int]] | None = None,
    slow: Mapping[int, int] | None = None,
    shadows: tuple[ShadowTraffic, ...] = (),
    front_end: str = "front-1",
    started_at: datetime = START,
) -> TrafficReport:
    """Return a report with (version, requests, errors) each; answers take 20 ms, `slow` of them 2 s."""
    entries = []
    for version, requests, errors in sorted(versions):
        answered, late = requests - errors, (slow or {}).get(version, 0)
        counts = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        counts[LATENCY_BOUNDS_MS.index(20.0)], counts[LATENCY_BOUNDS_MS.index(2500.0)] = answered - late, late
        entries.append(
            VersionTraffic(
                version=version,
                requests=requests,
                errors=errors,
                latency_counts=tuple(counts),
                top_counts=dict((top or {}).get(version, {"circle": answered} if answered else {})),
            )
        )
    return TrafficReport(
        model=MODEL, front_end=front_end, started_at=started_at, at=started_at, versions=tuple(entries), shadows=shadows
    )


class SwitchableStore(DirectoryStore):
    """A bucket that can be out of reach."""

    is_away = False

    def _reach(self) -> None:
        if self.is_away:
            raise StoreError("The bucket cannot be reached (the network is down). Check it and the credentials.")

    def create(self, *args, **named):
        self._reach()
        return super().create(*args, **named)

    def replace(self, *args, **named):
        self._reach()
        return super().replace(*args, **named)

    def open(self, *args, **named):
        self._reach()
        return super().open(*args, **named)

    def list(self, *args, **named):
        self._reach()
        return super().list(*args, **named)


class Lab:
    """One bucket, one training site with keys, one serving host."""

    def __init__(
        self, root: Path, *, settings: Mapping[str, object] | None = None, start: datetime | None = None
    ) -> None:
        self.root = root
        self.bucket = root / "bucket"
        self.store = SwitchableStore(self.bucket)
        self.registry = Registry(self.store, model=MODEL)
        # Signed metadata expires by the machine's own clock.
        self.clock = ManualClock(start or datetime.now(UTC).replace(microsecond=0))
        self.server = MemoryModelServer(clock=self.clock)
        self.limit_versions = 100.0
        self.traffic = TrafficFromTest()
        given = {"host": "host-1", "models_dir": root / "host" / "models", **(settings or {})}
        self.settings = AgentSettings(**given)
        self.model_dir = self.settings.models_dir / MODEL
        self.root_json = b""
        self.manifests: dict[int, Manifest] = {}

    def initialise(self) -> None:
        """Make keys and sign the first, empty state."""
        root, approver, releaser = (
            KeyFile(self.root / "keys" / name).create(name=name, ask_passphrase=None)
            for name in ("root", "approver", "releaser")
        )
        self._approver, self._releaser = approver, releaser
        roles = Roles((root.public,), 1, (approver.public,), 1, releaser.public)
        self.root_json = initialise_trust(self.registry, roles, (root, approver, releaser), now=self.clock.now())

    def reader(self, name: str = "host") -> TrustedReader:
        return TrustedReader(self.registry, metadata_dir=self.root / name / "trust", root=self.root_json)

    def publish(
        self, stable: int, *, canary: int | None = None, shadow: int | None = None, kind: str = "promotion"
    ) -> ReleaseRecord:
        """Release a version, approving it first when it is new."""
        self.clock.sleep(1)
        publisher = Publisher(self.reader("site"), self._releaser)
        for version in (stable, canary, shadow):
            if version is not None and version not in publisher.view().version_numbers:
                self._approve(publisher, version)
        view = publisher.view()
        number = len(view.release_numbers) + 1
        previous = view.release_sha256(number - 1) if number > 1 else None
        release = release_record(number, stable, canary=canary, shadow=shadow, kind=kind, previous=previous)
        publisher.publish_release(release, now=self.clock.now())
        return release

    def renew(self) -> None:
        Publisher(self.reader("site"), self._releaser).renew(now=self.clock.now(), is_forced=True)

    def _approve(self, publisher: Publisher, version: int) -> None:
        export = self.root / "runs" / str(version)
        if not export.exists():
            write_export(export, weight=float(version))
        manifest = self.manifests[version] = build_manifest(export)
        self.server.truth[version] = manifest
        push_export(self.registry, export, manifest)
        record = version_record(version, manifest)
        self.registry.put_blob(record.to_json(), sha256=record.sha256)
        proposed = propose_version(publisher.view(), record, expires=self.clock.now() + timedelta(days=365))
        signatures = {self._approver.public.key_id: self._approver.sign(proposed.payload)}
        publisher.publish_version(proposed, signatures, now=self.clock.now())

    def agent(self, **changes: object) -> Agent:
        """A new agent process."""
        parts = {"trust": self.reader(), "server": self.server, "settings": self.settings, "clock": self.clock}
        parts = {**parts, "traffic": self.traffic, **changes}
        parts.setdefault("memory", MemoryForVersions(parts["server"], self.limit_versions))
        return Agent(self.registry, **parts)

    def acknowledgements(self, release: int) -> list[Acknowledgement]:
        return list(self.registry.acknowledgements(release))

    def blob(self, version: int, path: str) -> Path:
        """The file in the bucket's directory that holds one file of a version."""
        (sha256,) = {entry.sha256 for entry in self.manifests[version].files if entry.path == path}
        return self.bucket / self.registry.blob_key(sha256)

    def state(self) -> dict:
        return json.loads((self.model_dir / "state.json").read_text())


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

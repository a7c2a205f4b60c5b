"""Frozen holdouts, reports and policies in memory, for the tests of judging."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import PhotoError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.records import InputContract, Lineage
from serving.photo import decode_photo
from validation.answers import Answers
from validation.checks.policy import Policy
from validation.checks.verdict import ChampionReference
from validation.photos.holdout_record import HoldoutItem
from validation.programs.protos import saved_model_pb2 as pb
from validation.reports.comparison import compare_counts, measurements_of
from validation.reports.report import LatencyMs, ModelMeasurements, Report

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
PLAIN_POLICY = Policy.model_validate({"accuracy": {"test": "superiority", "alpha": 0.05, "minimum_photos": 10}})


def build_honest_model() -> pb.SavedModel:
    """Pixels go into one call of function "answer", which computes scores of two classes."""
    model = pb.SavedModel(saved_model_schema_version=1)
    graph = model.meta_graphs.add()
    graph.meta_info_def.tags.append("serve")
    graph.graph_def.node.add(name="pixels", op="Placeholder")
    call = graph.graph_def.node.add(name="call", op="StatefulPartitionedCall", input=["pixels"])
    call.attr["f"].func.name = "answer"
    answer = graph.graph_def.library.function.add()
    answer.signature.name = "answer"
    answer.node_def.add(name="scores", op="Softmax", input=["pixels"])
    signature = graph.signature_def["serving_default"]
    tensors = (
        (signature.inputs["pixels"], "pixels:0", 4, (-1, 4, 4, 3)),
        (signature.outputs["probabilities"], "call:0", 1, (-1, 2)),
    )
    for tensor, name, dtype, shape in tensors:
        tensor.name, tensor.dtype = name, dtype
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
    return model


@pytest.fixture
def honest_model() -> Callable[[], pb.SavedModel]:
    return build_honest_model


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """The files of an export whose graph only computes; its weights are no weights."""
    directory = tmp_path / "run-7c1f" / "export"
    (directory / "variables").mkdir(parents=True)
    (directory / "assets.extra").mkdir()
    (directory / "saved_model.pb").write_bytes(build_honest_model().SerializeToString())
    (directory / "variables/variables.index").write_bytes(b"index")
    (directory / "variables/variables.data-00000-of-00001").write_bytes(b"data")
    (directory / "assets.extra/labels.json").write_bytes(b'["cat", "dog"]')
    return directory


class InProcessDecoder:
    """The photo contract without child processes."""

    def decode_many(self, photos: Iterable[bytes], contract: InputContract) -> Iterator[NDArray[np.uint8] | PhotoError]:
        for data in photos:
            try:
                yield decode_photo(data, contract)
            except PhotoError as error:
                yield error


@pytest.fixture
def decoder() -> InProcessDecoder:
    return InProcessDecoder()


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., list[LabelledPhoto]]:
    """Write `count` different PNG photos, labelled in turn, and return them."""

    def write(count: int, *, labels: tuple[str, ...] = ("cat", "dog"), seed: int = 0) -> list[LabelledPhoto]:
        random = np.random.default_rng(seed)
        written = []
        for index in range(count):
            path = tmp_path / f"photo-{seed}-{index}.PNG"
            Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
            label = labels[index % len(labels)]
            written.append(LabelledPhoto(path=path, label=label, source=f"folder:{label}/{path.name}"))
        return written

    return write


def make_items(
    truth: NDArray[np.int64],
    labels: tuple[str, ...],
    *,
    is_open: NDArray[np.bool_] | None = None,
    slices: list[dict[str, str]] | None = None,
) -> tuple[HoldoutItem, ...]:
    digests = sorted(sha256_hex(str(index).encode()) for index in range(len(truth)))
    return tuple(
        HoldoutItem(
            sha256=digest,
            extension="png",
            label=labels[index],
            source="folder:x",
            is_open=is_open is not None and bool(is_open[place]),
            slices={} if slices is None else slices[place],
        )
        for place, (digest, index) in enumerate(zip(digests, truth, strict=True))
    )


def make_scores(truth: NDArray[np.int64], right: NDArray[np.bool_], classes: int) -> NDArray[np.float32]:
    answer = np.where(right, truth, (truth + 1) % classes)
    scores = np.full((len(truth), classes), 0.2 / (classes - 1), dtype=np.float32)
    scores[np.arange(len(truth)), answer] = 0.8
    return scores


def measurements(truth: NDArray[np.int64], scores: NDArray[np.float32], **changes: Any) -> ModelMeasurements:
    labels = [str(index) for index in range(scores.shape[1])]
    fields: dict[str, Any] = {
        **measurements_of(truth, scores, labels=labels, policy=PLAIN_POLICY),
        "manifest_sha256": "a" * 64,
        "size_bytes": 1000,
        "load_seconds": 0.5,
        "latency_ms": LatencyMs(p50=1.0, p95=2.0, p99=3.0),
        "golden_difference": None,
        "golden_tolerance": None,
    }
    return ModelMeasurements(**{**fields, **changes})


@pytest.fixture
def make_answers() -> Callable[..., Answers]:
    """Build answers from which photos each model answers rightly; photo i is of class i modulo the number of labels."""

    def build(
        candidate_right: NDArray[np.bool_],
        champion_right: NDArray[np.bool_] | None,
        *,
        labels: tuple[str, ...] = ("cat", "dog"),
        truth: NDArray[np.int64] | None = None,
        is_open: NDArray[np.bool_] | None = None,
        slices: list[dict[str, str]] | None = None,
    ) -> Answers:
        if truth is None:
            truth = np.arange(len(candidate_right), dtype=np.int64) % len(labels)
        return Answers(
            labels=labels,
            items=make_items(truth, labels, is_open=is_open, slices=slices),
            truth=truth,
            candidate=make_scores(truth, candidate_right, len(labels)),
            champion=None if champion_right is None else make_scores(truth, champion_right, len(labels)),
        )

    return build


@pytest.fixture
def make_report() -> Callable[..., Report]:
    """Build a report from which photos each model answers rightly; photo i is of class i modulo `classes`."""

    def build(
        candidate_right: NDArray[np.bool_],
        champion_right: NDArray[np.bool_] | None,
        *,
        labels: tuple[str, ...] = ("cat", "dog"),
        truth: NDArray[np.int64] | None = None,
        **candidate_changes: Any,
    ) -> Report:
        if truth is None:
            truth = np.arange(len(candidate_right), dtype=np.int64) % len(labels)
        candidate = make_scores(truth, candidate_right, len(labels))
        champion = None if champion_right is None else make_scores(truth, champion_right, len(labels))
        return Report.model_validate(
            {
                **compare_counts(Answers(labels, make_items(truth, labels), truth, candidate, champion)),
                "holdout_sha256": "e" * 64,
                "run_id": "run-7c1f",
                "model": "pets",
                "lineage": Lineage(
                    run_id="run-7c1f",
                    code_commit="0f4073f",
                    code_dirty=False,
                    config_sha256="b" * 64,
                    data_manifest_sha256="c" * 64,
                    trained_by="ana",
                    trained_at=NOW,
                ),
                "candidate": measurements(truth, candidate, **candidate_changes),
                "champion": None if champion is None else measurements(truth, champion),
                "champion_reference": None
                if champion is None
                else ChampionReference(release=3, version=2, manifest_sha256="d" * 64),
                "training_photos_checked": None,
                "measured_at": NOW,
            }
        )

    return build


@pytest.fixture
def paired_right() -> Callable[..., tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return (candidate_right, champion_right) with exactly these counts, spread evenly over the photos."""

    def build(n: int, *, fixed: int, broken: int, neither: int = 0) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        kinds = np.array([1] * fixed + [2] * broken + [3] * neither + [0] * (n - fixed - broken - neither))
        np.random.default_rng(7).shuffle(kinds)
        return (kinds == 0) | (kinds == 1), (kinds == 0) | (kinds == 2)

    return build


@pytest.fixture
def make_policy() -> Callable[..., Policy]:
    """Build a policy of superiority at 0.05, 10 photos at least, changed as told; `document` holds further tables."""

    def build(*, document: dict[str, Any] | None = None, **rule: Any) -> Policy:
        tables = {table: rule.pop(table) for table in ("per_class", "limits") if table in rule}
        accuracy = {"test": "superiority", "alpha": 0.05, "minimum_photos": 10, **rule}
        return Policy.model_validate({"accuracy": accuracy, **tables, **(document or {})})

    return build


@pytest.fixture
def now() -> datetime:
    return NOW

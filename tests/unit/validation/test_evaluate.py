from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact_sync.clock import ManualClock
from artifact_sync.errors import InputError, ModelServerError, RefusedError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.records import GoldenExample, GoldenExamples, InputContract
from serving.model_server import ModelConfig, ModelSignature, Prediction, VersionStatus
from validation.evaluate import Subject, answer_holdout, is_constant, label_columns, measure_latency
from validation.photos.holdout import Holdout, PhotoDecoder, freeze_holdout
from validation.programs.smoke import replay_golden_examples

CONTRACT = InputContract(height=8, width=8, channels=3)
GREY = InputContract(height=4, width=4, channels=1)


class ArithmeticServer:
    """Answers every photo with [mean, 1 - mean] of its pixels, and takes a second more for each question."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self._clock = clock
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    def predict(
        self,
        model: str,
        pixels: NDArray[np.uint8],
        *,
        version: int | None = None,
        label: str | None = None,
        timeout_seconds: float = 1.0,
    ) -> Prediction:
        self.asked.append((model, pixels.shape))
        if self._clock is not None:
            self._clock.sleep(float(len(self.asked)))
        mean = pixels.reshape(len(pixels), -1).mean(axis=1, dtype=np.float32) / 255
        scores = np.stack([mean, 1 - mean], axis=1)
        return Prediction(scores=scores if model != "wide" else np.tile(scores, 2), version=1)

    def status(self, model: str) -> tuple[VersionStatus, ...]:
        return ()

    def signature(self, model: str, *, version: int | None = None, label: str | None = None) -> ModelSignature:
        return ModelSignature(version=1, inputs={}, outputs={})

    def reload(self, configs: tuple[ModelConfig, ...], *, timeout_seconds: float) -> None:
        return


@pytest.fixture
def holdout(tmp_path: Path, photos: Callable[..., list[LabelledPhoto]], decoder: PhotoDecoder) -> Holdout:
    return freeze_holdout(photos(7), labels=("cat", "dog"), out_dir=tmp_path / "holdout", decoder=decoder)


def test_rows_and_columns_come_in_the_holdouts_order(holdout: Holdout, decoder: PhotoDecoder) -> None:
    server, progress = ArithmeticServer(), []
    subjects = [
        Subject(name="straight", labels=("cat", "dog"), contract=CONTRACT),
        Subject(name="turned", labels=("dog", "cat"), contract=CONTRACT),
        Subject(name="grey", labels=("cat", "dog"), contract=GREY),
    ]
    scores = answer_holdout(
        server,
        subjects,
        holdout=holdout,
        decoder=decoder,
        batch_size=3,
        progress=lambda done, total: progress.append((done, total)),
    )
    pixels = np.concatenate(list(holdout.pixel_batches(CONTRACT, decoder=decoder, batch_size=7)))
    means = pixels.reshape(7, -1).mean(axis=1, dtype=np.float32) / 255
    assert scores["straight"][:, 0] == pytest.approx(means)
    assert scores["turned"][:, 1] == pytest.approx(means)
    assert scores["straight"].dtype == np.float32
    assert scores["grey"].shape == (7, 2)
    assert ("grey", (3, 4, 4, 1)) in server.asked
    assert progress[-1] == (21, 21)


def test_scores_of_another_shape_than_the_labels_are_an_error(holdout: Holdout, decoder: PhotoDecoder) -> None:
    wide = Subject(name="wide", labels=("cat", "dog"), contract=CONTRACT)
    with pytest.raises(ModelServerError, match=r"shape \(7, 4\) where \(7, 2\) was expected"):
        answer_holdout(ArithmeticServer(), [wide], holdout=holdout, decoder=decoder, batch_size=7)


def test_labels_are_matched_by_name_or_refused_by_name() -> None:
    assert label_columns(("b", "c", "a"), holdout_labels=("a", "b", "c"), name="candidate").tolist() == [2, 0, 1]
    with pytest.raises(RefusedError, match=r"labels of the champion are not.*does not know: c\. .*not know: d\."):
        label_columns(("a", "b", "d"), holdout_labels=("a", "b", "c"), name="champion")
    with pytest.raises(RefusedError):
        label_columns(("a", "b", "b"), holdout_labels=("a", "b"), name="candidate")


def test_latency_is_taken_in_turns_and_without_the_warm_up(holdout: Holdout, decoder: PhotoDecoder) -> None:
    clock = ManualClock(datetime(2026, 11, 20, tzinfo=UTC))
    server = ArithmeticServer(clock)
    subjects = [Subject(name=name, labels=("cat", "dog"), contract=CONTRACT) for name in ("one", "other")]
    latency = measure_latency(server, subjects, holdout=holdout, decoder=decoder, sample=3, clock=clock)
    assert [name for name, _ in server.asked] == ["one", "other"] * 8
    assert {shape for _, shape in server.asked} == {(1, 8, 8, 3)}
    # Questions 11, 13 and 15 are the first model's after five of each for warming up.
    assert (latency["one"].p50, latency["other"].p50) == (13_000.0, 14_000.0)
    assert 14_000 < latency["one"].p95 <= latency["one"].p99 < 15_000


def test_a_model_that_answers_all_photos_alike_is_constant() -> None:
    alike = np.tile(np.array([[0.3, 0.7]], dtype=np.float32), (5, 1))
    assert is_constant(alike)
    assert not is_constant(alike[:1])
    assert not is_constant(np.full((5, 2), np.nan, dtype=np.float32))
    alike[3, 0] = 0.31
    assert not is_constant(alike)


def golden(pixels: bytes, scores: tuple[float, ...]) -> GoldenExamples:
    example = GoldenExample(pixels_base64=base64.b64encode(pixels).decode(), scores=scores)
    return GoldenExamples(height=2, width=2, channels=1, tolerance=0.01, examples=(example, example))


def test_golden_examples_give_the_largest_distance_from_what_was_expected() -> None:
    server = ArithmeticServer()
    assert replay_golden_examples(server, "candidate", golden(b"\xff" * 4, (1.0, 0.0))) == (0.0, 0.0)
    distance, drift = replay_golden_examples(server, "candidate", golden(b"\x00" * 4, (0.25, 0.9)))
    assert (distance, drift) == (pytest.approx(0.25), 0.0)
    with pytest.raises(ModelServerError, match=r"expect scores of shape \(2, 3\), the server answers \(2, 2\)"):
        replay_golden_examples(server, "candidate", golden(b"\x00" * 4, (0.0, 0.5, 0.5)))
    with pytest.raises(InputError, match="one is not of 2x2x1"):
        replay_golden_examples(server, "candidate", golden(b"\x00" * 5, (0.0, 1.0)))

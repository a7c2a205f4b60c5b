"""Golden examples: what counts as the same answer."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from artifact_sync.errors import IntegrityError
from artifact_sync.records import GoldenExample, GoldenExamples
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH
from serving.golden import read_golden_examples, replay
from serving.model_server import Prediction


@dataclass
class Answers:
    """A server that answers these rows, in order."""

    rows: np.ndarray
    version: int = 3
    asked: int = 0

    def predict(self, model, pixels, *, version=None, label=None, timeout_seconds=10.0):
        assert (model, version, label, pixels.dtype, pixels.shape[1:]) == ("m", 3, None, np.uint8, (2, 2, 1))
        start, self.asked = self.asked, self.asked + len(pixels)
        return Prediction(scores=self.rows[start : self.asked].astype(np.float32), version=self.version)


def examples(rows: list[list[float]], *, tolerance: float = 0.01) -> GoldenExamples:
    pixels = base64.b64encode(bytes([1, 2, 3, 4])).decode()
    return GoldenExamples(
        height=2,
        width=2,
        channels=1,
        tolerance=tolerance,
        examples=tuple(GoldenExample(pixels_base64=pixels, scores=tuple(row)) for row in rows),
    )


EXPECTED = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]


def result(rows: list[list[float]], *, version: int = 3):
    return replay(Answers(np.array(rows), version), examples(EXPECTED), model="m", version=3, timeout_seconds=1)


def test_equal_answers_are_good() -> None:
    found = result(EXPECTED)
    assert found.is_good
    assert (found.examples, found.argmax_changes) == (2, 0)
    assert found.max_difference == pytest.approx(0, abs=1e-6)


def test_a_difference_within_the_tolerance_is_good_and_reported() -> None:
    found = result([[0.705, 0.195, 0.1], EXPECTED[1]])
    assert found.is_good
    assert found.max_difference == pytest.approx(0.005, abs=1e-6)


def test_a_difference_beyond_the_tolerance_is_not_good() -> None:
    found = result([[0.2, 0.7, 0.1], EXPECTED[1]])
    assert not found.is_good
    assert found.argmax_changes == 1
    assert str(found) == "2 golden examples: largest difference 0.5 of 0.01 allowed, 1 with another first label"


def test_a_flip_of_a_near_tie_within_the_tolerance_is_reported_and_good() -> None:
    tied = examples([[0.501, 0.499]])
    found = replay(Answers(np.array([[0.499, 0.501]])), tied, model="m", version=3, timeout_seconds=1)
    assert found.is_good
    assert found.argmax_changes == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_never_good(value: float) -> None:
    found = result([[value, 0.2, 0.1], EXPECTED[1]])
    assert not found.is_good
    assert found.nan_count == 1


def test_another_number_of_scores_is_never_good() -> None:
    found = result([[0.7, 0.3], [0.1, 0.9]])
    assert not found.is_good
    assert found.shape_mismatches == 2


def test_missing_answers_are_never_good() -> None:
    assert result([EXPECTED[0]]).shape_mismatches == 1


def test_an_answer_of_another_version_is_never_good() -> None:
    found = result(EXPECTED, version=2)
    assert not found.is_good
    assert found.wrong_versions == 2


def test_many_examples_are_asked_in_batches_and_each_is_compared() -> None:
    rows = [[0.5 + index / 1000, 0.5 - index / 1000] for index in range(50)]
    server = Answers(np.array(rows))
    found = replay(server, examples(rows), model="m", version=3, timeout_seconds=1)
    assert found.is_good
    assert server.asked == found.examples == 50


@pytest.mark.parametrize("pixels", ["AQID", "not base64!"])
def test_an_example_that_is_no_image_is_refused(pixels: str) -> None:
    broken = GoldenExamples(
        height=2,
        width=2,
        channels=1,
        tolerance=0.01,
        examples=(GoldenExample(pixels_base64=pixels, scores=(1.0, 0.0)),),
    )
    with pytest.raises(IntegrityError, match=r"not an image of \(2, 2, 1\)"):
        replay(Answers(np.zeros((1, 2))), broken, model="m", version=3, timeout_seconds=1)


def test_examples_are_read_from_the_version_directory(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"has no assets\.extra/golden_examples\.json"):
        read_golden_examples(tmp_path)
    path = tmp_path / GOLDEN_EXAMPLES_PATH
    path.parent.mkdir()
    path.write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="schema"):
        read_golden_examples(tmp_path)
    path.write_bytes(examples(EXPECTED).to_json())
    assert read_golden_examples(tmp_path) == examples(EXPECTED)

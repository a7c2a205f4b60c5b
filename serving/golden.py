"""Golden examples: does this server, on this host, answer as the training site did?

Its place in the flow: the agent replays them against a version that is AVAILABLE and before any
label points at it; the examples were exported, signed and verified with the version.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifact_sync.errors import IntegrityError, RecordError
from artifact_sync.records import GoldenExample, GoldenExamples
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH
from serving.model_server import ModelServer

_BATCH = 16


@dataclass(frozen=True)
class GoldenResult:
    """How far the answers were from the expected ones.

    Args:
        examples: how many were replayed.
        tolerance: the largest difference of a score that is accepted.
        max_difference: the largest difference that was seen, over the answers that were numbers.
        nan_count: examples with a NaN or an infinity among the scores.
        shape_mismatches: examples with another number of scores than labels.
        argmax_changes: examples whose first label is another one than expected.
        wrong_versions: examples that another version than the asked one answered.
    """

    examples: int
    tolerance: float
    max_difference: float
    nan_count: int
    shape_mismatches: int
    argmax_changes: int
    wrong_versions: int

    @property
    def is_good(self) -> bool:
        """Whether a label may move; a near-tie that flips within the tolerance is no fault."""
        faults = self.nan_count + self.shape_mismatches + self.wrong_versions
        return faults == 0 and self.max_difference <= self.tolerance

    def __str__(self) -> str:
        found = [f"largest difference {self.max_difference:.3g} of {self.tolerance:.3g} allowed"]
        counts = (
            (self.nan_count, "with NaN or infinity"),
            (self.shape_mismatches, "with the wrong number of scores"),
            (self.wrong_versions, "answered by another version"),
            (self.argmax_changes, "with another first label"),
        )
        found += [f"{count} {what}" for count, what in counts if count]
        return f"{self.examples} golden examples: {', '.join(found)}"


def read_golden_examples(version_directory: Path) -> GoldenExamples:
    """Return the golden examples of a verified version directory.

    Raises:
        IntegrityError: the version has none, or they are not what they should be.
    """
    path = version_directory / GOLDEN_EXAMPLES_PATH
    try:
        return GoldenExamples.from_json(path.read_bytes())
    except FileNotFoundError:
        raise IntegrityError(
            f"Version {version_directory.name} refused: it has no {GOLDEN_EXAMPLES_PATH}, so nothing can show that "
            "this host computes what the training site measured. Export the run again with Liftgate."
        ) from None
    except RecordError as error:
        raise IntegrityError(f"Version {version_directory.name} refused: {GOLDEN_EXAMPLES_PATH}: {error}") from None


def replay(
    server: ModelServer, examples: GoldenExamples, *, model: str, version: int, timeout_seconds: float
) -> GoldenResult:
    """Ask `version` for the scores of every example and compare them with the expected ones.

    Raises:
        IntegrityError: an example is not an image of the stated size.
        ModelServerError: the server refuses or does not answer.
    """
    differences, argmax_changes = [0.0], 0
    nan_count = shape_mismatches = wrong_versions = 0
    for start in range(0, len(examples.examples), _BATCH):
        batch = examples.examples[start : start + _BATCH]
        pixels = np.stack([_pixels(example, examples) for example in batch])
        answer = server.predict(model, pixels, version=version, timeout_seconds=timeout_seconds)
        wrong_versions += len(batch) if answer.version != version else 0
        for index, example in enumerate(batch):
            expected = np.asarray(example.scores, dtype=np.float64)
            scores = np.asarray(answer.scores[index], dtype=np.float64) if index < len(answer.scores) else np.empty(0)
            if scores.shape != expected.shape:
                shape_mismatches += 1
            elif not np.isfinite(scores).all():
                nan_count += 1
            else:
                differences.append(float(np.abs(scores - expected).max()))
                argmax_changes += int(scores.argmax() != expected.argmax())
    return GoldenResult(
        examples=len(examples.examples),
        tolerance=examples.tolerance,
        max_difference=max(differences),
        nan_count=nan_count,
        shape_mismatches=shape_mismatches,
        argmax_changes=argmax_changes,
        wrong_versions=wrong_versions,
    )


def golden_photos(examples: GoldenExamples) -> list[npt.NDArray[np.uint8]]:
    """Return the photos of the examples, each [height, width, channels].

    Raises:
        IntegrityError: an example is not an image of the stated size.
    """
    return [_pixels(example, examples) for example in examples.examples]


def _pixels(example: GoldenExample, examples: GoldenExamples) -> npt.NDArray[np.uint8]:
    shape = (examples.height, examples.width, examples.channels)
    try:
        flat = np.frombuffer(base64.b64decode(example.pixels_base64, validate=True), dtype=np.uint8)
        return flat.reshape(shape)
    except (binascii.Error, ValueError) as error:
        raise IntegrityError(f"A golden example is not an image of {shape} uint8 values: {error}.") from None

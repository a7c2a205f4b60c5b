"""Pixels and labels in the bytes of a block, whatever the labels' length; what is no record is refused."""

from __future__ import annotations

import numpy as np
import pytest

from artifact_sync.errors import IntegrityError
from artifact_sync.records import InputContract
from training_cluster.datasets.tfrecord import example, frame
from training_cluster.inputs.records import RecordLayout

_CONTRACT = InputContract(height=2, width=3, channels=3)
_PICTURES = np.random.default_rng(1).integers(0, 256, (6, 18), np.uint8)


def _block(labels: list[int]) -> bytes:
    return b"".join(
        frame(example(pixels=picture.tobytes(), label=label, source=bytes([label & 0xFF]) * 32))
        for picture, label in zip(_PICTURES, labels, strict=False)
    )


@pytest.mark.parametrize("labels", [[0, 1, 127, 2, 5, 3], [200, 300, 16383, 128, 129, 4000], [1, 128, 20000, 0, 65535]])
def test_each_picture_is_found_with_its_label(labels: list[int]) -> None:
    parsed = RecordLayout(_CONTRACT).parse(_block(labels))
    assert parsed.labels.tolist() == labels
    rows = np.array([4, 0, 4, 2])
    pixels = np.zeros((5, 18), np.uint8)
    parsed.copy_into(pixels, rows=rows, slots=np.array([1, 4, 0, 3]))
    np.testing.assert_array_equal(pixels[[1, 4, 0, 3]], _PICTURES[rows])
    assert not pixels[2].any()


def test_large_pictures_are_copied_alike() -> None:
    contract = InputContract(height=80, width=80, channels=3)
    pictures = np.random.default_rng(1).integers(0, 256, (3, 19200), np.uint8)
    block = b"".join(frame(example(pixels=picture.tobytes(), label=1, source=bytes(32))) for picture in pictures)
    pixels = np.zeros((3, 19200), np.uint8)
    parsed = RecordLayout(contract).parse(block)
    parsed.copy_into(pixels, rows=np.array([2, 0, 1]), slots=np.array([0, 2, 1]))
    np.testing.assert_array_equal(pixels[[0, 2, 1]], pictures[[2, 0, 1]])


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (_block([1, 2])[:-1], "cut"),
        (_block([1, 2])[:-95], "cut"),
        (frame(b"something else"), "a record has 30 bytes"),
        (_block([1]) + frame(example(pixels=bytes(17), label=1, source=bytes(33))), "does not begin as"),
        (_block([1]).replace(b"label", b"lable"), "does not begin as"),
    ],
)
def test_what_is_no_record_of_such_pictures_is_refused(block: bytes, fault: str) -> None:
    with pytest.raises(IntegrityError, match=fault):
        RecordLayout(_CONTRACT).parse(block)

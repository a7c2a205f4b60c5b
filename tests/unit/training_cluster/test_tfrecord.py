"""TFRecord framing and Example encoding, against published values and by round trip."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact_sync.errors import IntegrityError
from training_cluster.datasets.tfrecord import example, frame, read_frames


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_records_read_back_as_written(records: list[bytes]) -> None:
    stream = io.BytesIO(b"".join(frame(record) for record in records))
    assert list(read_frames(stream)) == records


def test_every_cut_and_every_flipped_bit_is_noticed() -> None:
    whole = frame(b"some pixels") + frame(b"")
    for cut in range(1, len(frame(b"some pixels"))):
        with pytest.raises(IntegrityError):
            list(read_frames(io.BytesIO(whole[:cut])))
    for place in range(len(whole)):
        for bit in range(8):
            damaged = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            with pytest.raises(IntegrityError):
                list(read_frames(io.BytesIO(damaged)))


def test_the_frame_of_a_known_record_is_the_one_that_tensorflow_writes() -> None:
    # Written with tf.io.TFRecordWriter 2.21.
    assert frame(b"liftgate").hex() == "0800000000000000ff86240f6c6966746761746590e2e71d"


def test_the_example_of_known_features_is_the_one_that_protobuf_writes() -> None:
    # Written with tf.train.Example 2.21, SerializeToString(deterministic=True).
    written = (
        "0a380a0f0a056c6162656c12061a040a02ac020a110a06706978656c73"
        "12070a050a030102030a120a06736f7572636512080a060a04aaaaaaaa"
    )
    assert example(pixels=b"\x01\x02\x03", label=300, source=b"\xaa" * 4).hex() == written

"""What is kept of a photo: its picture, colour and orientation, and nothing that tells on people."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from artifact_sync.errors import PhotoError
from artifact_sync.records import InputContract
from serving.exif_orientation import orientation_block, read_orientation
from serving.photo import decode_photo
from serving.photo_privacy import without_metadata

CONTRACT = InputContract(height=48, width=64, channels=3)


def test_nothing_secret_is_left_in_any_kind(good_photos, photo_tools):
    secrets = [kind for kind in good_photos if photo_tools.LOCATION in kind.data]
    assert len(secrets) >= 9
    for kind in good_photos:
        assert photo_tools.LOCATION not in without_metadata(kind.data), kind.name
        assert b"Camera" not in without_metadata(kind.data), kind.name


def test_pixels_are_equal_for_every_kind(good_photos):
    for kind in good_photos:
        kept = without_metadata(kind.data)
        assert np.array_equal(decode_photo(kept, CONTRACT), decode_photo(kind.data, CONTRACT)), kind.name


def test_doing_it_twice_changes_nothing(good_photos):
    for kind in good_photos:
        kept = without_metadata(kind.data)
        assert without_metadata(kept) == kept, kind.name


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Image appears to be a malformed MPO")
def test_other_programs_read_the_same_picture_profile_and_orientation(good_photos):
    for kind in good_photos:
        if kind.name == "png text bomb":  # Pillow refuses to read it before the bomb is taken out
            continue
        with Image.open(io.BytesIO(kind.data)) as before, Image.open(io.BytesIO(without_metadata(kind.data))) as after:
            assert after.size == before.size, kind.name
            assert after.info.get("icc_profile") == before.info.get("icc_profile"), kind.name
            if "exif" not in kind.name:
                assert after.getexif().get(0x112, 1) == before.getexif().get(0x112, 1), kind.name
            assert set(after.getexif()) <= {0x112}, kind.name
            assert after.tobytes() == before.tobytes(), kind.name


def test_a_refused_photo_is_refused_here_too():
    with pytest.raises(PhotoError) as caught:
        without_metadata(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_written_orientation_is_read_back(orientation):
    assert read_orientation(orientation_block(orientation)) == orientation


@pytest.mark.parametrize(
    "broken", [b"", b"Exif\0\0", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"x" * 99]
)
def test_a_broken_block_means_upright(broken):
    assert read_orientation(broken) == 1

"""HEIC photos where pillow-heif is installed: turned once, refused when cut, never kept with their metadata."""

from __future__ import annotations

import io

import numpy as np
import pytest

from artifact_sync.errors import PhotoError
from artifact_sync.records import InputContract
from serving.decode_pool import DecodePool
from serving.photo import decode_photo
from serving.photo_privacy import without_metadata

pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is an extra: its wheels are GPLv2")
CONTRACT = InputContract(height=48, width=64, channels=3)


@pytest.fixture
def heic(photo_tools):
    """Build a HEIC whose container and EXIF both say how to turn it, as phones do."""

    def build(orientation: int) -> bytes:
        stream = io.BytesIO()
        image = pillow_heif.from_pillow(photo_tools.picture(120, 90))
        image.save(stream, quality=95, exif=photo_tools.exif(orientation, secret=True))
        return stream.getvalue()

    return build


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_it_is_turned_once(heic, photo_tools, orientation):
    image = photo_tools.picture(120, 90)
    expected = decode_photo(photo_tools.encoded(image, "PNG", exif=photo_tools.exif(orientation)), CONTRACT)
    assert np.abs(decode_photo(heic(orientation), CONTRACT).astype(int) - expected).mean() < 1.5


def test_a_child_decodes_it_to_the_same_pixels(heic):
    with DecodePool(workers=1) as pool:
        assert np.array_equal(pool.decode(heic(6), CONTRACT), decode_photo(heic(6), CONTRACT))


def test_a_cut_one_is_refused_as_truncated(heic):
    data = heic(1)
    for length in (30, 200, len(data) // 2, len(data) - 1):
        with pytest.raises(PhotoError) as caught:
            decode_photo(data[:length], CONTRACT)
        assert caught.value.reason == "truncated"


def test_it_is_not_kept_since_its_metadata_cannot_be_taken_out(heic):
    with pytest.raises(PhotoError) as caught:
        without_metadata(heic(1))
    assert caught.value.reason == "metadata-not-removable"

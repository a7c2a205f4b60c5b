"""The photo contract: one function from bytes to pixels, right for every kind and safe from all."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from artifact_sync.errors import PhotoError
from artifact_sync.records import InputContract
from serving.photo import decode_photo
from serving.photo_format import read_structure
from serving.photo_limits import PhotoLimits

CONTRACT = InputContract(height=48, width=64, channels=3)
GREY = InputContract(height=28, width=28, channels=1)


def refusal_reason(data, contract=CONTRACT, limits=None):
    try:
        decode_photo(data, contract, limits or PhotoLimits())
    except PhotoError as error:
        return error.reason if str(error).startswith("Photo refused: ") else f"not a refusal: {error}"
    return None


def test_the_corpus_has_the_kinds_that_were_asked_for(corpus):
    names = {kind.name for kind in corpus}
    assert len(names) == len(corpus) >= 100
    assert {f"jpeg orientation {number}" for number in range(1, 9)} <= names


def test_every_kind_decodes_or_is_refused_with_its_reason(corpus):
    found = {kind.name: refusal_reason(kind.data) for kind in corpus}
    assert found == {kind.name: kind.reason for kind in corpus}


def test_pixels_are_canonical_for_every_good_kind_and_contract(good_photos):
    for kind in good_photos:
        for contract in (CONTRACT, GREY):
            pixels = decode_photo(kind.data, contract)
            assert pixels.dtype == np.uint8, kind.name
            assert pixels.shape == (contract.height, contract.width, contract.channels), kind.name
            assert np.array_equal(pixels, decode_photo(kind.data, contract)), kind.name


def test_a_photo_of_exactly_the_contracts_size_is_not_changed(photo_tools):
    image = photo_tools.picture(32, 32)
    contract = InputContract(height=32, width=32, channels=3)
    assert np.array_equal(decode_photo(photo_tools.encoded(image, "PNG"), contract), np.asarray(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_orientation_is_applied_once(photo_tools, orientation, kind):
    image = photo_tools.picture(96, 64)
    data = photo_tools.encoded(image, kind, lossless=True, exif=photo_tools.exif(orientation))
    with Image.open(io.BytesIO(data)) as opened:
        upright = photo_tools.encoded(ImageOps.exif_transpose(opened).convert("RGB"), "PNG")
    found = decode_photo(data, CONTRACT).astype(int)
    # Turning before or after the resize differs by rounding only.
    assert np.abs(found - decode_photo(upright, CONTRACT)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_jpeg_is_what_pillow_says(photo_tools, orientation):
    image = photo_tools.picture(200, 120)
    data = photo_tools.encoded(image, quality=97, exif=photo_tools.exif(orientation))
    with Image.open(io.BytesIO(data)) as opened:
        upright = ImageOps.exif_transpose(opened)
        expected = decode_photo(photo_tools.encoded(upright, "PNG"), CONTRACT)
    assert np.abs(decode_photo(data, CONTRACT).astype(int) - expected).mean() < 1.5


@pytest.mark.parametrize("kind", ["jpeg cmyk of adobe", "jpeg cmyk without marker"])
def test_cmyk_is_read_by_adobes_convention_as_every_browser_does(corpus, kind):
    kinds = {kind.name: kind.data for kind in corpus}
    found = decode_photo(kinds[kind], CONTRACT).astype(int)
    assert np.abs(found - decode_photo(kinds["jpeg plain"], CONTRACT)).mean() < 12


@pytest.mark.parametrize("channels", ["grey", "rgb", "rgba"])
def test_sixteen_bits_keep_their_high_byte(corpus, channels):
    kinds = {kind.name: kind.data for kind in corpus}
    deep = decode_photo(kinds[f"png 16 bits {channels}"], InputContract(height=40, width=60, channels=3))
    assert deep.min() < 10
    assert deep.max() == 255
    assert 60 < deep.mean() < 220


def test_sixteen_bit_grey_equals_the_same_picture_of_eight_bits(corpus, photo_tools):
    kinds = {kind.name: kind.data for kind in corpus}
    contract = InputContract(height=40, width=60, channels=1)
    shallow = photo_tools.picture(60, 40).getchannel("R")
    expected = decode_photo(photo_tools.encoded(shallow, "PNG"), contract)
    assert np.array_equal(decode_photo(kinds["png 16 bits grey"], contract), expected)


def test_what_is_transparent_becomes_white(photo_tools):
    clear = Image.new("RGBA", (64, 48), (10, 20, 30, 0))
    for kind in ("PNG", "WEBP"):
        pixels = decode_photo(photo_tools.encoded(clear, kind, lossless=True), CONTRACT)
        assert (pixels == 255).all(), kind


def test_the_crop_is_centred_and_keeps_the_aspect(photo_tools):
    image = Image.new("RGB", (300, 100), (255, 0, 0))
    image.paste((0, 255, 0), (100, 0, 200, 100))
    pixels = decode_photo(photo_tools.encoded(image, "PNG"), InputContract(height=10, width=10, channels=3))
    # The kernel of the resize reaches a little over the edge of the crop, as far as there is picture.
    assert (pixels[:, 2:-2] == (0, 255, 0)).all()
    assert (pixels[..., 1] > 200).all()


def test_a_scaled_decode_stays_near_the_full_one(photo_tools):
    image = photo_tools.picture(1600, 1200)
    jpeg = decode_photo(photo_tools.encoded(image, quality=97), CONTRACT).astype(int)
    png = decode_photo(photo_tools.encoded(image, "PNG"), CONTRACT).astype(int)
    assert np.abs(jpeg - png).mean() < 1.5


def test_refused_photos_are_refused_without_allocating_their_pixels(corpus):
    import tracemalloc

    bombs = [kind for kind in corpus if kind.reason in {"too-many-pixels", "too-many-scans"}]
    assert len(bombs) >= 5
    for kind in bombs:
        tracemalloc.start()
        with pytest.raises(PhotoError):
            read_structure(kind.data, PhotoLimits())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # A part for each scan is remembered; nothing grows with the pixels that are claimed.
        assert peak < 32 * 1024 * 1024 + 4 * len(kind.data), kind.name


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (PhotoLimits(max_bytes=100), "too-many-bytes"),
        (PhotoLimits(max_jpeg_pixels=5399), "too-many-pixels"),
        (PhotoLimits(max_jpeg_pixels=5400), None),
        (PhotoLimits(max_scans=0), "too-many-scans"),
    ],
)
def test_limits_are_held_to_the_last_unit(photo_tools, limits, reason):
    assert refusal_reason(photo_tools.encoded(photo_tools.picture(90, 60)), limits=limits) == reason


def test_a_scan_limit_lets_exactly_that_many_through(photo_tools):
    data = photo_tools.encoded(photo_tools.picture(64, 64), progressive=True)
    scans = read_structure(data, PhotoLimits()).scans
    assert scans > 1
    assert refusal_reason(data, limits=PhotoLimits(max_scans=scans)) is None
    assert refusal_reason(data, limits=PhotoLimits(max_scans=scans - 1)) == "too-many-scans"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photo_cut_anywhere_is_refused_and_never_padded(photo_tools, kind):
    data = photo_tools.encoded(photo_tools.picture(120, 90), kind)
    reasons = {refusal_reason(data[:length]) for length in range(12, len(data), max(1, len(data) // 150))}
    assert reasons == {"truncated"}


def test_a_flipped_bit_gives_pixels_or_a_photo_error_and_nothing_else(photo_tools):
    generator = np.random.default_rng(7)
    for kind in ("JPEG", "PNG", "WEBP"):
        data = photo_tools.encoded(photo_tools.picture(60, 40), kind)
        for _ in range(150):
            broken = bytearray(data)
            broken[generator.integers(len(data))] ^= 1 << generator.integers(8)
            refusal_reason(bytes(broken))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP"]))
def test_arbitrary_bytes_are_refused_with_a_reason(data, magic):
    assert refusal_reason(magic + data) is not None


def test_warnings_of_the_decoder_do_not_escape(corpus):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for kind in corpus:
            if "megapixels" not in kind.name:
                refusal_reason(kind.data)
    assert seen == []


def test_it_needs_numpy_and_pillow_alone():
    code = (
        "import sys, serving.photo; "
        "heavy = {'tensorflow', 'flask', 'grpc', 'boto3', 'tuf', 'sqlalchemy'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_heic_photo_is_refused_by_name_where_its_decoder_is_not_installed(monkeypatch):
    monkeypatch.setattr("serving.photo_format.is_heif_available", lambda: False)
    with pytest.raises(PhotoError, match="HEIC file; allowed are JPEG, PNG, WebP"):
        decode_photo(b"\0\0\0\x18ftypheic" + b"\0" * 40, CONTRACT)

"""Photos of every kind that people send, and of the kinds that attackers send, built in memory.

Each kind is (name, bytes, reason): `reason` is None for a photo that decodes, else the word of the
PhotoError that it must end in. Loaded by fixtures; importing it costs nothing but Pillow and numpy.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import piexif
from PIL import Image, ImageCms

LOCATION = b"LIFTGATE-SECRET-PLACE"


@dataclass(frozen=True)
class PhotoKind:
    name: str
    data: bytes
    reason: str | None = None


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """An asymmetric picture: red grows to the right, green downwards, one blue corner."""
    rgb = np.zeros((height, width, 3), dtype=np.uint8)
    rgb[:, :, 0] = np.linspace(0, 255, width).astype(np.uint8)[None, :]
    rgb[:, :, 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    rgb[: max(1, height // 3), : max(1, width // 3), 2] = 255
    return Image.fromarray(rgb).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int = 1, *, secret: bool = False) -> bytes:
    zeroth = {piexif.ImageIFD.Orientation: orientation, piexif.ImageIFD.Make: b"Camera"}
    gps: dict[int, object] = {}
    if secret:
        zeroth[piexif.ImageIFD.ImageDescription] = LOCATION
        gps = {
            piexif.GPSIFD.GPSLatitudeRef: b"N",
            piexif.GPSIFD.GPSLatitude: ((52, 1), (31, 1), (12, 1)),
            piexif.GPSIFD.GPSAreaInformation: LOCATION,
        }
    thumbnail = encoded(picture(80, 60))
    return bytes(piexif.dump({"0th": zeroth, "GPS": gps, "1st": {}, "thumbnail": thumbnail}))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def raw_png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *, extra: bytes = b"", interlaced: bool = False
) -> bytes:
    """A PNG from its raw rows (each begins with its filter byte); extra chunks go before the data."""
    header = struct.pack(">LLBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    data = zlib.compress(rows, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    )


def deep_png(channels: int, *, extra: bytes = b"") -> bytes:
    """A PNG of 16 bits a sample."""
    rgb = np.asarray(picture(60, 40)).astype(np.uint16) * 257
    alpha = np.linspace(0, 65535, 60).astype(np.uint16)[None, :, None].repeat(40, axis=0)
    samples = {
        1: rgb[:, :, :1],
        2: np.concatenate([rgb[:, :, :1], alpha], axis=-1),
        3: rgb,
        4: np.concatenate([rgb, alpha], axis=-1),
    }[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return raw_png(60, 40, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows, extra=extra)


def interlaced_png(image: Image.Image) -> bytes:
    """An Adam7 PNG, which Pillow reads and cannot write."""
    pixels = np.asarray(image.convert("RGB"))
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for x, y, step_x, step_y in passes:
        part = pixels[y::step_y, x::step_x]
        if part.size:
            rows += b"".join(b"\0" + row.tobytes() for row in part)
    return raw_png(image.width, image.height, 8, 2, rows, interlaced=True)


def scans_jpeg(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = encoded(picture(64, 64), progressive=True)
    start = data.rfind(b"\xff\xda")
    return data[:start] + data[start:-2] * scans + b"\xff\xd9"


def jpeg_with(*segments: tuple[int, bytes], base: bytes | None = None) -> bytes:
    """A JPEG with further segments after its start."""
    data = base if base is not None else encoded(picture(90, 60), quality=90)
    added = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return data[:2] + added + data[2:]


def mpo() -> bytes:
    return encoded(picture(120, 80), "MPO", save_all=True, append_images=[picture(60, 40)], exif=exif(6, secret=True))


def animated(kind: str) -> bytes:
    frames = [picture(40, 40), picture(40, 40).transpose(Image.Transpose.ROTATE_90)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def _adobe_cmyk() -> bytes:
    """CMYK as Adobe writes it: inverted, with the marker that says so."""
    return encoded(picture(90, 60, "CMYK"), quality=95)


def _plain_cmyk() -> bytes:
    """CMYK without the Adobe marker: not inverted."""
    data = _adobe_cmyk()
    start = data.find(b"\xff\xee")
    (length,) = struct.unpack_from(">H", data, start + 2)
    return data[:start] + data[start + 2 + length :]


def _jpegs() -> Iterator[PhotoKind]:
    plain = encoded(picture(90, 60), quality=90)
    for orientation in range(1, 9):
        image = picture(90, 60)
        yield PhotoKind(f"jpeg orientation {orientation}", encoded(image, quality=95, exif=exif(orientation)))
    yield PhotoKind("jpeg plain", plain)
    yield PhotoKind("jpeg grey", encoded(picture(90, 60, "L")))
    yield PhotoKind("jpeg cmyk of adobe", _adobe_cmyk())
    yield PhotoKind("jpeg cmyk without marker", _plain_cmyk())
    yield PhotoKind("jpeg rgb kept", encoded(picture(90, 60), quality=95, keep_rgb=True))
    yield PhotoKind("jpeg progressive", encoded(picture(300, 200), progressive=True))
    yield PhotoKind("jpeg progressive grey", encoded(picture(300, 200, "L"), progressive=True))
    for name, sampling in (("444", 0), ("422", 1), ("420", 2)):
        yield PhotoKind(f"jpeg {name}", encoded(picture(101, 67), subsampling=sampling))
    yield PhotoKind("jpeg quality 1", encoded(picture(90, 60), quality=1))
    yield PhotoKind("jpeg quality 100", encoded(picture(90, 60), quality=100))
    yield PhotoKind("jpeg restart markers", encoded(picture(300, 200), restart_marker_blocks=2))
    yield PhotoKind("jpeg arithmetic tables optimised", encoded(picture(300, 200), optimize=True))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield PhotoKind("jpeg icc", encoded(picture(90, 60), icc_profile=profile))
    yield PhotoKind("jpeg icc broken", encoded(picture(90, 60), icc_profile=b"\xff" * 3000))
    yield PhotoKind("jpeg secret exif", encoded(picture(90, 60), exif=exif(8, secret=True)))
    yield PhotoKind("jpeg comment", encoded(picture(90, 60), comment=LOCATION))
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + LOCATION + b"</x:xmpmeta>"
    yield PhotoKind("jpeg xmp", jpeg_with((0xE1, xmp)))
    yield PhotoKind("jpeg photoshop block", jpeg_with((0xED, b"Photoshop 3.0\0" + LOCATION)))
    yield PhotoKind("jpeg exif empty", jpeg_with((0xE1, b"Exif\0\0")))
    yield PhotoKind("jpeg exif garbage", jpeg_with((0xE1, b"Exif\0\0" + b"\xff" * 64)))
    yield PhotoKind("jpeg exif offset beyond", jpeg_with((0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f")))
    yield PhotoKind("jpeg exif orientation 9", jpeg_with((0xE1, exif(9)[0:])))
    yield PhotoKind("jpeg exif orientation 0", jpeg_with((0xE1, exif(0)[0:])))
    yield PhotoKind("jpeg exif twice", jpeg_with((0xE1, exif(6)), (0xE1, exif(3))))
    yield PhotoKind("jpeg mpf broken", jpeg_with((0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")))
    yield PhotoKind("jpeg mpo", mpo())
    yield PhotoKind("jpeg bytes after the end", plain + LOCATION * 10)
    yield PhotoKind("jpeg fill bytes", plain[:2] + b"\xff\xff\xff" + plain[2:])
    yield PhotoKind("jpeg 1x1", encoded(picture(1, 1)))
    yield PhotoKind("jpeg 1x5000", encoded(picture(1, 5000)))
    yield PhotoKind("jpeg 5000x1", encoded(picture(5000, 1)))
    yield PhotoKind("jpeg 3x2 turned", encoded(picture(3, 2), exif=exif(6)))
    yield PhotoKind("jpeg prime sizes", encoded(picture(641, 479)))
    yield PhotoKind("jpeg 12 megapixels", encoded(picture(4032, 3024), quality=85, exif=exif(6)))


def _pngs() -> Iterator[PhotoKind]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield PhotoKind(f"png {mode}", encoded(picture(90, 60, mode), "PNG"))
    half = picture(90, 60, "RGBA")
    half.putalpha(Image.linear_gradient("L").resize((90, 60)))
    yield PhotoKind("png alpha gradient", encoded(half, "PNG"))
    yield PhotoKind("png palette with transparency", encoded(half.quantize(64), "PNG"))
    yield PhotoKind("png palette one transparent", encoded(picture(90, 60).quantize(16), "PNG", transparency=3))
    yield PhotoKind("png rgb transparent colour", encoded(picture(90, 60), "PNG", transparency=(0, 0, 255)))
    yield PhotoKind("png grey transparent", encoded(picture(90, 60, "L"), "PNG", transparency=0))
    for bits in (1, 2, 4):
        yield PhotoKind(f"png palette {bits} bits", encoded(picture(90, 60).quantize(2**bits), "PNG", bits=bits))
    for channels, name in ((1, "grey"), (2, "grey alpha"), (3, "rgb"), (4, "rgba")):
        yield PhotoKind(f"png 16 bits {name}", deep_png(channels))
    yield PhotoKind("png 16 bits grey transparent", deep_png(1, extra=png_chunk(b"tRNS", b"\0\0")))
    yield PhotoKind("png 16 bits rgb transparent", deep_png(3, extra=png_chunk(b"tRNS", b"\0\0\0\0\xff\xff")))
    yield PhotoKind("png interlaced", interlaced_png(picture(61, 43)))
    yield PhotoKind("png turned by exif", encoded(picture(90, 60), "PNG", exif=exif(6, secret=True)))
    text = png_chunk(b"tEXt", b"Place\0" + LOCATION) + png_chunk(b"iTXt", b"XML\0\0\0\0\0" + LOCATION)
    plain = encoded(picture(90, 60), "PNG")
    yield PhotoKind("png text", plain[:33] + text + plain[33:])
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 50_000_000, 9))
    yield PhotoKind("png text bomb", plain[:33] + bomb + plain[33:])
    yield PhotoKind("png 1x1", encoded(picture(1, 1), "PNG"))
    yield PhotoKind("png 1x5000", encoded(picture(1, 5000), "PNG"))
    yield PhotoKind("png 32x32", encoded(picture(32, 32), "PNG"))
    yield PhotoKind("png 30 megapixels", encoded(picture(6000, 5000), "PNG", compress_level=1))


def _webps() -> Iterator[PhotoKind]:
    half = picture(90, 60, "RGBA")
    half.putalpha(Image.linear_gradient("L").resize((90, 60)))
    yield PhotoKind("webp lossy", encoded(picture(90, 60), "WEBP"))
    yield PhotoKind("webp lossless", encoded(picture(90, 60), "WEBP", lossless=True))
    yield PhotoKind("webp alpha", encoded(half, "WEBP"))
    yield PhotoKind("webp alpha lossless", encoded(half, "WEBP", lossless=True))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield PhotoKind("webp icc", encoded(picture(90, 60), "WEBP", icc_profile=profile))
    yield PhotoKind("webp turned by exif", encoded(picture(90, 60), "WEBP", exif=exif(6, secret=True)))
    yield PhotoKind("webp alpha, exif, xmp", encoded(half, "WEBP", exif=exif(3, secret=True), xmp=LOCATION))
    yield PhotoKind("webp 1x1", encoded(picture(1, 1), "WEBP"))


def _hostile() -> Iterator[PhotoKind]:
    jpeg = encoded(picture(300, 200), quality=90)
    png = encoded(picture(90, 60), "PNG")
    webp = encoded(picture(90, 60), "WEBP")
    yield PhotoKind("empty", b"", "not-an-image")
    yield PhotoKind("text", b"hello, this is a photo", "not-an-image")
    yield PhotoKind("two bytes of a jpeg", b"\xff\xd8", "not-an-image")
    for share in (10, 50, 90, 99):
        yield PhotoKind(f"jpeg cut at {share} %", jpeg[: len(jpeg) * share // 100], "truncated")
        yield PhotoKind(f"png cut at {share} %", png[: len(png) * share // 100], "truncated")
        yield PhotoKind(f"webp cut at {share} %", webp[: len(webp) * share // 100], "truncated")
    yield PhotoKind("jpeg without its end", jpeg[:-2], "truncated")
    yield PhotoKind("progressive cut", encoded(picture(300, 200), progressive=True)[:-500], "truncated")
    short = zlib.compress(b"\0" * 50, 9)
    header = png_chunk(b"IHDR", struct.pack(">LLBBBBB", 90, 60, 8, 2, 0, 0, 0))
    lying = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", short) + png_chunk(b"IEND", b"")
    yield PhotoKind("png with too few rows", lying, "truncated")
    yield PhotoKind("png wrong checksum", png[:40] + bytes([png[40] ^ 1]) + png[41:], "decode-failed")
    yield PhotoKind("png no data", png[:33] + png_chunk(b"IEND", b""), "decode-failed")
    yield PhotoKind("png chunk name", png[:33] + png_chunk(b"\0\0\0\0", b"") + png[33:], "decode-failed")
    zeros = encoded(Image.new("L", (12000, 12000)), "PNG")
    yield PhotoKind("png 12000 x 12000 zeros", zeros, "too-many-pixels")
    huge = struct.pack(">LLBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    yield PhotoKind("png of 4 exapixels", png[:8] + png_chunk(b"IHDR", huge) + png[33:], "too-many-pixels")
    start = jpeg.find(b"\xff\xc0") + 5
    yield PhotoKind("jpeg of 65535²", jpeg[:start] + b"\xff\xff\xff\xff" + jpeg[start + 4 :], "too-many-pixels")
    canvas = struct.pack("<4sL", b"VP8X", 10) + b"\0\0\0\0" + b"\xff\x3f\0" * 2
    large = b"RIFF" + struct.pack("<L", len(webp) - 8 + len(canvas)) + b"WEBP" + canvas + webp[12:]
    yield PhotoKind("webp canvas of 16384²", large, "decode-failed")
    yield PhotoKind("jpeg of 20000 scans", scans_jpeg(20_000), "too-many-scans")
    yield PhotoKind("jpeg of 101 scans", scans_jpeg(101), "too-many-scans")
    yield PhotoKind("jpeg of 60000 comments", jpeg_with(*[(0xFE, b"")] * 60_000), "decode-limit")
    yield PhotoKind("jpeg no picture", b"\xff\xd8\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xd9", "decode-failed")
    yield PhotoKind("jpeg no tables", jpeg[:2] + jpeg[jpeg.find(b"\xff\xc0") :], "decode-failed")
    yield PhotoKind("jpeg two frame headers", _two_frames(jpeg), "decode-failed")
    yield PhotoKind("gif", encoded(picture(40, 40), "GIF"), "format-not-allowed")
    yield PhotoKind("gif animated", animated("GIF"), "format-not-allowed")
    yield PhotoKind("webp animated", animated("WEBP"), "too-many-frames")
    yield PhotoKind("png animated", animated("PNG"), "too-many-frames")
    for kind in ("TIFF", "BMP", "EPS", "PDF", "ICO"):
        yield PhotoKind(f"{kind.lower()} named jpg", encoded(picture(40, 40), kind), "format-not-allowed")
    yield PhotoKind("avif", encoded(picture(40, 40), "AVIF"), "format-not-allowed")
    yield PhotoKind("jpeg 2000", encoded(picture(40, 40), "JPEG2000"), "format-not-allowed")
    yield PhotoKind("svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "format-not-allowed")
    yield PhotoKind("zip", b"PK\x03\x04" + b"\0" * 100, "not-an-image")
    yield PhotoKind("30 megabytes", b"\xff\xd8\xff" + b"\0" * 30_000_000, "too-many-bytes")


def _two_frames(jpeg: bytes) -> bytes:
    start = jpeg.find(b"\xff\xc0")
    (length,) = struct.unpack_from(">H", jpeg, start + 2)
    return jpeg[:start] + jpeg[start : start + 2 + length] + jpeg[start:]


@cache
def photo_corpus() -> tuple[PhotoKind, ...]:
    """Every kind, good and hostile; the names are unique."""
    return (*_jpegs(), *_pngs(), *_webps(), *_hostile())

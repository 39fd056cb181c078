"""What `read_image` and the preprocessing of `clip.load` make of every kind of picture."""

import os
import socket
import struct
import time

import numpy as np
import pytest
from PIL import Image, ImageOps, features

import clip
from dassl.utils import images, orientation_of, read_image, to_rgb
from tests.dassl.damaged_images import chunks_of_png

RAMP = np.linspace(0, 1, 64 * 48).reshape(48, 64)  # black to white, row by row
GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def mean(path) -> float:
    return float(np.asarray(read_image(path)).mean()) / 255


# Values of more than 8 bits


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_greyscale_of_any_depth_in_16_bits_is_neither_black_nor_white(tmp_path, bits, suffix) -> None:
    values = (RAMP * (2**bits - 1)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    found = np.asarray(read_image(tmp_path / f"a.{suffix}"))
    assert np.array_equal(found, np.repeat((values >> (bits - 8))[..., None], 3, axis=2))


def test_big_endian_32_bit_and_negative_values(tmp_path) -> None:
    values = (RAMP * 4095).astype(">u2")
    header = b"MM\0*" + struct.pack(">I", 8)
    tags = [(256, 64), (257, 48), (258, 16), (259, 1), (262, 1), (273, 8 + 2 + 9 * 12 + 4), (277, 1), (278, 48)]
    tags.append((279, values.nbytes))
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    (tmp_path / "big.tif").write_bytes(header + struct.pack(">H", 9) + entries + bytes(4) + values.tobytes())
    assert mean(tmp_path / "big.tif") == pytest.approx(0.5, abs=0.01)
    Image.fromarray((RAMP * 1_000_000 - 1).astype(np.int32)).save(tmp_path / "wide.tif")
    assert 0.02 < mean(tmp_path / "wide.tif") < 0.04  # 20 bits count as 24
    Image.fromarray(np.array([[-5, 0, 128, 255]], dtype=np.int32)).save(tmp_path / "signed.tif")
    assert np.asarray(read_image(tmp_path / "signed.tif"))[0, :, 0].tolist() == [0, 0, 128, 255]


def test_a_grey_map_with_12_bits_and_a_colour_png_with_16(tmp_path) -> None:
    values = (RAMP * 4095).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 64 48 4095\n" + values.tobytes())
    assert mean(tmp_path / "a.pgm") == pytest.approx(0.5, abs=0.01)
    colours = np.repeat((RAMP * 65535).astype(">u2")[..., None], 3, axis=2)
    lines = b"".join(b"\0" + row.tobytes() for row in colours)
    (tmp_path / "a.png").write_bytes(chunks_of_png(64, 48, 16, 2, lines))
    assert mean(tmp_path / "a.png") == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_the_preprocessing_of_clip_does_the_same(tmp_path, bits) -> None:
    Image.fromarray((RAMP * (2**bits - 1)).astype(np.uint16)).save(tmp_path / "a.png")
    _, preprocess = clip.load("ViT-Micro/8", device="cpu")
    assert preprocess(Image.open(tmp_path / "a.png")).equal(preprocess(read_image(tmp_path / "a.png")))
    with pytest.raises(ValueError, match="floating-point numbers"):
        preprocess(Image.fromarray(RAMP.astype(np.float32)))


# Modes of 8 bits and less: as Pillow converts them, to the bit


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_modes_of_8_bits_are_converted_as_before(mode) -> None:
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    image = rgb.convert("P").convert("PA") if mode == "PA" else rgb.convert(mode)
    assert to_rgb(image).tobytes() == image.convert("RGB").tobytes()


def test_cmyk_jpegs_palettes_with_transparency_and_animations(tmp_path) -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    red.convert("CMYK").save(tmp_path / "cmyk.jpg")  # as Adobe's programs store it: inverted
    red.convert("CMYK").save(tmp_path / "cmyk.tif")  # not inverted
    red.quantize(4).save(tmp_path / "palette.png", transparency=bytes([0, 255, 255, 255]))
    red.save(tmp_path / "frames.gif", save_all=True, append_images=[Image.new("RGB", (16, 16), (0, 0, 255))])
    red.convert("LAB").save(tmp_path / "lab.tif")
    red.putalpha(128)
    red.save(tmp_path / "alpha.png")
    for path in tmp_path.iterdir():
        found = np.asarray(read_image(path)).astype(int)
        assert abs(found - (255, 0, 0)).max() <= 6, path.name
    if features.check("avif"):
        Image.new("RGB", (16, 16), (255, 0, 0)).save(tmp_path / "a.avif", quality=100)
        assert abs(np.asarray(read_image(tmp_path / "a.avif")).astype(int) - (255, 0, 0)).max() <= 8


# EXIF's orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_orientations_are_applied_on_request_only(tmp_path, orientation, suffix) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.repeat(GREYS[:8, :, None], 3, axis=2))
    options = {"jpg": {"quality": 100}, "png": {}, "webp": {"lossless": True}}[suffix]
    image.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        as_shown = ImageOps.exif_transpose(stored).convert("RGB")
    plain, upright = read_image(tmp_path / f"a.{suffix}"), read_image(tmp_path / f"a.{suffix}", upright=True)
    assert (plain.size, orientation_of(plain)) == ((16, 8), orientation)
    assert (upright.tobytes(), orientation_of(upright)) == (as_shown.tobytes(), 1)


def test_damaged_exif_data_do_not_matter(tmp_path) -> None:
    for number, data in enumerate(
        [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x09" + b"\1" * 9]
    ):
        Image.fromarray(GREYS).save(tmp_path / f"{number}.jpg", exif=data)
        assert orientation_of(read_image(tmp_path / f"{number}.jpg", upright=True)) == 1
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.fromarray(GREYS).save(tmp_path / "77.jpg", exif=exif)
    assert read_image(tmp_path / "77.jpg", upright=True).size == (16, 16)


# What is no picture


def test_what_is_not_a_regular_file_is_an_error_at_once(tmp_path, monkeypatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    listener = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # the address of a socket is at most 107 bytes long
    listener.bind("socket.jpg")
    started = time.monotonic()
    reasons = {
        "pipe.jpg": "a named pipe, a socket or a device, not a file",
        "device.jpg": "a named pipe, a socket or a device, not a file",
        "socket.jpg": "a named pipe, a socket or a device, not a file",
        "folder.jpg": "it is a folder, not a file",
        "empty.jpg": r"\(0 bytes\) .* it is empty",
        "circle.jpg": "it is a link in a circle",
        "x" * 300: "File name too long",
        "nul\0.jpg": "null",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=f"{name[:3]}.*{reason}"):
            read_image(f"{tmp_path}/{name}")
    listener.close()
    with pytest.raises(
        FileNotFoundError, match=r"No image at .*dangling\.jpg \(a link to nowhere, which does not exist\)"
    ):
        read_image(tmp_path / "dangling.jpg")
    with pytest.raises(FileNotFoundError, match=r"No image at .*empty\.jpg/a\.jpg"):
        read_image(tmp_path / "empty.jpg" / "a.jpg")
    assert time.monotonic() - started < 5


def test_programs_and_rare_formats_are_not_run(tmp_path) -> None:
    (tmp_path / "a.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n/x 1 def\n%%EOF\n"
    )
    with pytest.raises(ValueError, match=r"a\.jpg .* in the format EPS, which is not read: convert it"):
        read_image(tmp_path / "a.jpg")


def test_what_a_file_is_that_is_no_picture(tmp_path) -> None:
    reasons = {
        b"<html>quota": "it begins with b'<html>quota'",
        b"\0\0\0\x18ftypheic": "which is HEIC: convert it to JPEG",
    }
    for content, reason in reasons.items():
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.jpg .* cannot identify its format.*{reason}"):
            read_image(tmp_path / "a.jpg")


# Sizes


def claims(width: int, height: int) -> dict[str, bytes]:
    """Files that are nothing but a header, by format."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 9)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return {
        "png": chunks_of_png(width, height, 8, 2, b"\0"),
        "bmp": b"BM" + struct.pack("<IIIIIIHHIIIIII", 99, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(9),
        "ppm": b"P6 %d %d 255\n" % (width, height) + bytes(9),
        "gif": b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + bytes([8, 1, 0, 0]),
        "tif": b"II*\0" + struct.pack("<IH", 8, 9) + entries + bytes(4),
        "jpg": b"\xff\xd8\xff\xc0"
        + struct.pack(">HBHHB", 11, 8, height, width, 1)
        + b"\1\x11\0"
        + b"\xff\xda"
        + bytes(9),
    }


@pytest.mark.parametrize("suffix", claims(1, 1))
def test_a_header_that_claims_too_much_is_refused_before_anything_is_allocated(tmp_path, monkeypatch, suffix) -> None:
    monkeypatch.setattr(images, "to_rgb", lambda image: pytest.fail("decoded"))
    for width, height in ((60_000, 60_000), (15_000, 12_000)):
        (tmp_path / f"a.{suffix}").write_bytes(claims(width, height)[suffix])
        with pytest.raises(
            ValueError, match=rf"a\.{suffix} .* more than 178,956,970 pixels, the limit: make it smaller"
        ):
            read_image(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").write_bytes(claims(40_000, 10)[suffix])
    with pytest.raises(
        ValueError, match=rf"a\.{suffix} .*40,000 x 10 pixels; the sides may differ by a factor of 1,000"
    ):
        read_image(tmp_path / f"a.{suffix}")


def test_a_hundred_megapixels_are_read_without_a_warning(tmp_path, recwarn, capfd) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    assert read_image(tmp_path / "huge.png").size == (10_000, 10_000)
    assert not recwarn.list and capfd.readouterr() == ("", "")


def test_the_limit_is_ours_where_pillows_was_switched_off(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "a.png").write_bytes(claims(60_000, 60_000)["png"])
    with pytest.raises(ValueError, match=r"a\.png .* more than 178,956,970 pixels"):
        read_image(tmp_path / "a.png")

"""Reading images: any file gives an RGB image or one error that names it."""

import ctypes
import errno
import logging
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["orientation_of", "read_image", "to_rgb"]

MAX_PIXELS = 2**29 // 3  # 178,956,970: 512 MiB as RGB, where Pillow's own limit is by default
MAX_RATIO = 1000  # of the longer to the shorter side: resizing the shorter one enlarges the longer one with it
# Of Pillow's formats. It runs EPS with Ghostscript, and decodes some rare ones in slow Python loops or without a limit
FORMATS = {"AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP"}
DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits per value that cameras, scanners and microscopes deliver

# The values of EXIF's tag "orientation" that ask for a change, which shows the image upright
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NO_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def read_image(path: str | Path, draft: tuple[int, int] | None = None, upright: bool = False) -> Image.Image:
    """Return the image as RGB (see :func:`to_rgb`); of an animated one, the first frame.

    Args:
        path: the file.
        draft: smallest sufficient size (width, height): a JPEG is decoded at a fraction of its size that is at least
            this large, which is faster and changes its pixels.
        upright: turn the image as its EXIF orientation says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, is damaged, or is larger than MAX_PIXELS or MAX_RATIO allow. Also for
            anything but a regular file, which is not opened.
    """
    with _opened(path) as image:
        if draft is not None:
            image.draft("RGB", draft)
        rgb = to_rgb(image)
        turn = _UPRIGHT.get(orientation_of(rgb)) if upright else None
        if turn is None:
            return rgb
        rgb = rgb.transpose(turn)
        rgb.info.pop("exif", None)  # it describes the image as stored
        return rgb


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB. Transparency is dropped.

    Integers of more than 8 bits are shifted to 8. Their depth is the smallest of DEPTHS that holds the image's largest
    value, since files store 10, 12 or 14 bits in 16 without saying so. Negative integers are black.

    Raises:
        ValueError: the pixels are floating-point numbers, for which no value is known to be white.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: save it with 8 bits per channel")
    if image.mode.startswith("I"):
        values = np.array(image)  # (H, W), uint16 or int32
        np.maximum(values, 0, out=values)
        depth = next(depth for depth in DEPTHS if int(values.max(initial=0)) < 2**depth)
        values >>= depth - 8
        rgb = Image.fromarray(values.astype(np.uint8)).convert("RGB")
        rgb.info.update(image.info)
        return rgb
    return image.convert("RGB")


def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation of a decoded image, from 1 (upright) to 8; 1 if it has none or its EXIF data are damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data make its parser fail in any way; the pixels are not affected
        return 1
    return value if value in _UPRIGHT else 1


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open an image, and turn whatever fails in the block into an error that names the file."""
    size = _regular_size(path)
    _silence_pillow()
    try:
        with Image.open(path) as image:
            _check_header(image)
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} ({size:,} bytes) cannot be read as an image: {_unidentified(path)}") from error
    except Exception as error:  # a damaged file makes decoders fail in any way, from a KeyError to a MemoryError
        raise ValueError(f"{path} ({size:,} bytes) cannot be read as an image: {_reason(error)}") from error


def _silence_pillow() -> None:
    """Ignore Pillow's warnings and log, which do not name the file."""
    if warnings.filters[:1] != [_NO_WARNINGS]:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    if not (log := logging.getLogger("PIL")).handlers:
        log.addHandler(logging.NullHandler())


@cache
def _silence_libtiff() -> None:
    """Stop libtiff from printing its errors, which do not name the file, if it is a shared library."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


def _regular_size(path: str | Path) -> int:
    """Size in bytes of a regular file. Opening anything else, such as a named pipe, could block for ever."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        dangling = f" (a link to {os.readlink(path)}, which does not exist)" if os.path.islink(path) else ""
        raise FileNotFoundError(f"No image at {path}{dangling}") from error
    except (OSError, ValueError) as error:  # a circle of links, a name too long, no permission; a null character
        reason = "it is a link in a circle" if getattr(error, "errno", 0) == errno.ELOOP else _reason(error)
        raise ValueError(f"{str(path)!r} cannot be read as an image: {reason}") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a named pipe, a socket or a device"
        raise ValueError(f"{path} cannot be read as an image: it is {kind}, not a file")
    if not found.st_size:
        raise ValueError(f"{path} (0 bytes) cannot be read as an image: it is empty")
    return found.st_size


def _check_header(image: Image.Image) -> None:
    """Raise a ValueError for a size or format that is not decoded, before any pixel is."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ValueError(f"it has {width:,} x {height:,} pixels; the sides may differ by a factor of {MAX_RATIO:,}")
    if image.format not in FORMATS and type(image).__module__.startswith("PIL."):
        raise ValueError(f"it is in the format {image.format}, which is not read: convert it to PNG or JPEG")
    if image.format == "TIFF":
        _silence_libtiff()


def _reason(error: Exception) -> str:
    """What an error says, in one line without the path."""
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS:,} pixels, the limit: make it smaller"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _unidentified(path: str | Path) -> str:
    """What a file is that is in no known format or has a damaged header."""
    with open(path, "rb") as file:
        start = file.read(16)
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "cannot identify its format, which is HEIC: convert it to JPEG"
    return f"cannot identify its format: it begins with {start!r}"

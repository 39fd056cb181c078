"""Reads damaged copies of small images of every format, in a process of its own: `python damaged_images.py COUNT SEED`.

Prints a JSON with the counts of both outcomes, whatever went wrong, and the longest time. On Linux, more memory than
MEMORY is refused to the process, which shows as an error of one of the images.
"""

import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, features

from dassl.utils.images import read_image

MEMORY = 2**30  # bytes of address space beyond what Python and Pillow take


def originals() -> dict[str, bytes]:
    """A small image in each format and mode, by the name of its file."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 2**16, (24, 32), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = rgb.quantize(16)
    frames = {"save_all": True, "append_images": [rgb.rotate(90)]}
    plans = {
        "plain.jpg": (rgb, {"exif": exif}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "plain.png": (rgb, {"exif": exif}),
        "deep.png": (deep, {}),
        "palette.png": (palette, {"transparency": bytes(range(16))}),
        "bits.png": (rgb.convert("1"), {}),
        "frames.gif": (palette, frames),
        "plain.bmp": (rgb, {}),
        "plain.tif": (rgb, {}),
        "deep.tif": (deep, {}),
        "packed.tif": (rgb, {"compression": "tiff_lzw"}),
        "lab.tif": (rgb.convert("LAB"), {}),
        "plain.webp": (rgb, {"exif": exif}),
        "frames.webp": (rgb, frames),
        "plain.ppm": (rgb, {}),
        "deep.pgm": (deep.convert("I"), {}),
    }
    if features.check("avif"):
        plans["plain.avif"] = (rgb, {"exif": exif})
    contents = {}
    for name, (image, options) in plans.items():
        buffer = io.BytesIO()
        image.save(buffer, Image.registered_extensions()[Path(name).suffix], **options)
        contents[name] = buffer.getvalue()
    contents["interlaced.png"] = interlaced(np.asarray(deep)[:8, :8].astype(np.uint8).tolist())
    return contents


def chunks_of_png(width: int, height: int, bits: int, kind: int, lines: bytes, interlace: int = 0) -> bytes:
    """A PNG with the given header and lines, each of which starts with its filter."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlace)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(lines), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


def interlaced(rows: list[list[int]]) -> bytes:
    """A grey PNG of 8 x 8 pixels in Adam7's order, which Pillow reads and does not write."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    lines = [bytes([0, *rows[y][x0::dx]]) for x0, y0, dx, dy in passes for y in range(y0, 8, dy)]
    return chunks_of_png(8, 8, 8, 0, b"".join(lines), interlace=1)


def damaged(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """A copy with bytes changed, cut, repeated, or continued with another file's."""
    kind = rng.choice(["change", "change", "change header", "cut", "splice", "repeat"])
    start = rng.randrange(len(content))
    if kind == "cut":
        return content[:start]
    if kind == "splice":
        return content[:start] + other[rng.randrange(len(other)) :]
    if kind == "repeat":
        return content[:start] + content[rng.randrange(start + 1) :]
    copy = bytearray(content)
    reach = min(64, len(copy)) if kind == "change header" else len(copy)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        copy[rng.randrange(reach)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(copy)


def limit_memory() -> None:
    if sys.platform == "linux":
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, resource.RLIM_INFINITY))


def main(count: int, seed: int) -> None:
    rng, files = random.Random(seed), originals()
    limit_memory()
    outcomes: Counter[str] = Counter()
    wrong, longest = [], 0.0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(count):
            name = rng.choice(sorted(files))
            path = Path(folder) / f"{number}-{name}"
            path.write_bytes(damaged(rng, files[name], files[rng.choice(sorted(files))]))
            start = time.perf_counter()
            try:
                image = read_image(path, upright=True)
                outcomes["image"] += 1
                if image.mode != "RGB":
                    wrong.append(f"{path.name}: {image.mode}")
            except ValueError as error:
                outcomes["error"] += 1
                if str(path) not in str(error) or "\n" in str(error) or "not enough memory" in str(error):
                    wrong.append(f"{path.name}: {error}")
            except BaseException as error:
                wrong.append(f"{path.name}: {type(error).__name__}: {error}")
            longest = max(longest, time.perf_counter() - start)
            path.unlink()
        wrong += [str(warning.message) for warning in caught]
    print(json.dumps({**outcomes, "wrong": wrong, "longest": longest}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

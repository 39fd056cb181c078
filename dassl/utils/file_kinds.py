"""What a file is that should hold weights and does not: named by its first bytes."""

import codecs
import json

__all__ = ["describe"]

START_LENGTH = 512  # first bytes that `describe` needs; a tar archive is recognized at byte 257

_MAGIC = (
    (b"\x1f\x8b", "it is compressed by gzip: unpack it first"),
    (b"BZh", "it is compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ\0", "it is compressed by xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive: unpack it first"),
    (b"Rar!\x1a\x07", "it is a RAR archive: unpack it first"),
    (b"\x89PNG", "it is a picture (PNG)"),
    (b"\xff\xd8\xff", "it is a picture (JPEG)"),
    (b"GIF8", "it is a picture (GIF)"),
    (b"BM", "it is a picture (BMP)"),
    (b"II*\0", "it is a picture (TIFF)"),
    (b"MM\0*", "it is a picture (TIFF)"),
    (b"RIFF", "it is a picture, sound or video (RIFF)"),
    (b"%PDF", "it is a PDF"),
    (b"\x89HDF\r\n", "it is an HDF5 file, as Keras writes: weights must be saved by torch.save or safetensors"),
    (b"\x93NUMPY", "it is an array of NumPy: weights must be saved by torch.save or safetensors"),
    (b"GGUF", "it is a GGUF file of llama.cpp: weights must be saved by torch.save or safetensors"),
    (b"ggml", "it is a GGML file: weights must be saved by torch.save or safetensors"),
    (b"PK\x05\x06", "it is an empty zip archive"),
    (b"\x7fELF", "it is a program"),
    (b"MZ", "it is a program for Windows"),
    (b"SQLite format 3", "it is an SQLite database"),
)
_ONNX = "it is an ONNX model: weights must be saved by torch.save or safetensors"
_POINTER = (
    "it is a pointer file of Git LFS, not the weights: run `git lfs install` and `git lfs pull` in its repository, or "
    "download the file itself"
)
_WEB_PAGE = (
    "it is a web page (HTML), as a server sends in place of a file that is not there or needs a login: "
    "check the address in a browser"
)


def describe(start: bytes, size: int) -> str:
    """What a file is, as `it is …`, given its first `START_LENGTH` bytes and its size in bytes."""
    if size == 0:
        return "it is empty: the download did not begin, or the disk was full"
    if not any(start):
        return "it begins with zeros only, as a file whose download or copy did not end"
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if start[257:262] == b"ustar":
        return "it is a tar archive: unpack it first"
    if start[:1] == b"\x08" and start[2:3] in (b"\x12", b":", b"B"):  # a protobuf: version, then the producer or graph
        return _ONNX
    if start[:1] == b"\x80":
        return "it is a pickle that torch.save did not write, or one whose end is missing"
    return _describe_text(start) or f"its first bytes ({start[:8]!r}) are of no format for weights"


def _describe_text(start: bytes) -> str | None:
    """What a text is; None if it is none."""
    utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if utf16 else ("utf-8-sig", "latin-1"):
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(start)  # its last character may be cut
        except UnicodeDecodeError:
            continue
        if all(character.isprintable() or character.isspace() for character in text):
            break
    else:
        return None
    text = text.strip()
    lower = text.lower()
    if lower.startswith("version https://git-lfs") or "git-lfs.github.com/spec" in lower:
        return _POINTER
    if lower.startswith(("<!doctype html", "<html", "<head", "<body", "<script")) or "<html" in lower:
        return _WEB_PAGE
    beginning = json.dumps(text[:100], ensure_ascii=False)
    if text.startswith("<"):
        return f"it is an XML text, such as a server's error message, that begins {beginning}"
    if text.startswith(("{", "[")):
        return f"it is a JSON text, such as a server's error message, that begins {beginning}"
    return f"it is a text that begins {beginning}"

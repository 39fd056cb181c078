"""Text for consoles that cannot show every character, and for files that can. Imports no package."""

import sys

__all__ = ["prepare_console", "printable", "utf8_text"]

# C0 and C1 controls, line and paragraph separators, and the controls that reorder the text around them
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in _CONTROLS}


def prepare_console() -> None:
    r"""Print characters that stdout or stderr cannot encode as escapes such as ``\u03b1``.

    Without this, Greek class names on an ASCII console end a run with a UnicodeEncodeError. Every command calls it
    first. Files are not affected: they are UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not None (no console) or an object that replaces the stream
            stream.reconfigure(errors="backslashreplace")


def printable(text: str, keep: str = "") -> str:
    r"""``text`` with control characters except those in ``keep`` as escapes such as ``\n`` and ``\x1b``.

    For names that come from files and folders: printed as they are, they could break lines or control the terminal.
    """
    return text.translate({code: escape for code, escape in _ESCAPES.items() if chr(code) not in keep})


def utf8_text(text: str) -> str:
    r"""``text`` without surrogates, so that it can be written to a UTF-8 file.

    Where the locale is not UTF-8, Python decodes other bytes of a file name to surrogates: they are read as UTF-8
    here. Bytes that are not UTF-8 appear as escapes such as ``\xff``.
    """
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        data = text.encode("utf-8", "backslashreplace")
    return data.decode("utf-8", "backslashreplace")

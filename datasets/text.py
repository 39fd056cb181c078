"""The readers of text: plain lines, JSON and tables, as Windows, spreadsheets and scripts write them.

Whatever a file contains, a reader returns its content or raises one ValueError that names the file, the line or entry,
what was found, and what to do.
"""

import csv
import gzip
import io
import json
import reprlib
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dassl.utils import first_few

MAX_BYTES = 256 * 2**20  # of a text file: a list of two million images has less
DELIMITERS = ",;\t"
_BOMS = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def shortened(value: object) -> str:
    """``repr(value)``, of a limited length, for messages about values of any size."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a very long {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}…"


def what_is(path: Path | str) -> str:
    """What is at a path instead of a file: "a named pipe"; empty for a file."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a link to a file that does not exist" if path.is_symlink() else "nothing"
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "")


def read_bytes(path: Path | str, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; of the unpacked content of a ``.gz`` file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file (opening a named pipe would wait for ever), too large, or a damaged ``.gz`` file.
    """
    path = Path(path)
    kind = what_is(path)
    if kind in ("nothing", "a link to a file that does not exist"):
        raise FileNotFoundError(f"{path} does not exist" if kind == "nothing" else f"{path} is {kind}")
    if kind:
        raise ValueError(f"{path} is {kind}, not a file")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a valid gzip file ({error}): download or write it again") from error
    if len(content) > limit:
        raise ValueError(f"{path} has more than {limit // 2**20} MiB: it is not the file that is expected here")
    return content


def read_text(path: Path | str) -> str:
    """The content of a UTF-8 file, without a byte order mark and with ``\\n`` at the end of each line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a regular file, binary, or in another encoding.
    """
    content = read_bytes(path)
    if other := next((name for mark, name in _BOMS if content.startswith(mark)), ""):
        raise ValueError(f"{path} is {other}, not UTF-8: save it as UTF-8")
    if (position := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, position) + 1
        raise ValueError(f"{path} is not text (line {line} has a byte 0): save it as UTF-8, or replace it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = content.rfind(b"\n", 0, error.start) + 1
        found = content[start : error.start + 30].splitlines()[0].decode("cp1252", "replace")
        number = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is not UTF-8 (line {number}: byte 0x{content[error.start]:02x}, which is the "
            f"{shortened(found)} of a Windows code page, or damage): save it as UTF-8, for example "
            'with `iconv -f WINDOWS-1252 -t UTF-8`; in Excel as "CSV UTF-8"'
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path | str) -> list[tuple[int, str]]:
    """(number from 1, text without blanks around it) of every line of a text file that is not blank."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(number, text) for number, line in lines if (text := line.strip())]


def read_json(path: Path | str) -> Any:
    """The content of a JSON file, plain or ``.gz``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, too deeply nested, a number of thousands of digits, or a key that stands twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(content := dict(pairs)) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {shortened(next(k for k in keys if keys.count(k) > 1))} stands twice")
        return content

    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError(f"{path} is not valid JSON (nested too deeply): write it again") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): download or write it again") from error


def read_table(path: Path | str, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[str, dict]]:
    """The rows of a table with a header, separated by commas, semicolons or tabs: (where, {column: cell}).

    Blank rows and empty cells at the end of a row, as spreadsheets write them, are left out.

    Args:
        path: the file.
        columns: names of columns that must exist, in any order and case.
        optional: names of columns that may exist.

    Raises:
        ValueError: a column is missing, unknown or repeated, or a row is invalid; the message has its line.
    """
    text = read_text(path)
    first_line = text.lstrip("\n").partition("\n")[0]
    delimiter = max(DELIMITERS, key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    header: list[str] = []
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            row = [cell.strip() for cell in next(reader)]
        except StopIteration:
            break
        except csv.Error as error:
            raise ValueError(
                f'{where}: {error}. A field with a delimiter or a quote in it must be in "quotes"'
            ) from error
        while row and not row[-1] and len(row) > len(header):
            row.pop()
        if len(row) > len(header) > 0:
            raise ValueError(
                f"{where} has {len(row)} fields, but the header has {len(header)}: a name that contains the delimiter "
                f'{delimiter!r} must be in "quotes" (found {shortened(row)})'
            )
        if not header and row:
            header = _checked_header(path, [cell.lower() for cell in row], columns, optional)
        elif any(row):
            yield where, dict(zip(header, row + [""] * (len(header) - len(row)), strict=True))
    if not header:
        _checked_header(path, header, columns, optional)


def _checked_header(path: Path | str, header: list[str], columns: Sequence[str], optional: Sequence[str]) -> list[str]:
    known = ",".join((*columns, *optional))
    if absent := [name for name in columns if name not in header]:
        raise ValueError(
            f"{path} must have the columns {','.join(columns)}{''.join(f'[,{name}]' for name in optional)}; "
            f"{','.join(absent)} is missing (found {shortened(header)})"
        )
    if unknown := [name for name in header if name not in (*columns, *optional)]:
        raise ValueError(f"{path} has the unknown columns {first_few(unknown)[:200]}; known are {known}")
    if len(set(header)) < len(header):
        raise ValueError(f"{path} has a column twice: {','.join(header)}")
    return header

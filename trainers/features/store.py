"""The folder of stored image features: a memory-mapped safetensors file for each list of images.

A file's name and metadata have the digest of everything that its features depend on, so that a file is never wrong,
only unused. Letters: N images, V views of each, E joint width.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from dassl.utils.disk import readable_size
from dassl.utils.files import atomic_write, mkdir_if_missing, remove_temporaries

if TYPE_CHECKING:
    from filelock import FileLock
    from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]  # of the repository, where relative folders start
DEFAULT_FOLDER = "output/features"
TENSOR = "features"
ALIGNMENT = 64  # bytes, of torch's own memory: kernels may add in another order elsewhere
PATIENCE = 600.0  # seconds without a sign of life after which a process that computes is no longer waited for
_LOOK = 0.1  # seconds between two looks at it
_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
_NAME = re.compile(r"[\w.+-]*-\d+-[0-9a-f]{32}\.safetensors")


def given_folder(folder: str = "") -> Path | None:
    """`folder`, else $FEATURES, as an absolute path; None if neither is given. ~ is the home folder."""
    given = folder or os.environ.get("FEATURES", "")
    return Path(ROOT, os.path.expanduser(given)) if given else None


@dataclass(frozen=True)
class Entry:
    """A file of the store."""

    path: Path
    size: int  # bytes
    used: float  # when it was last read or written, in seconds since 1970
    info: Mapping[str, Any] | None  # what is in it; None if it is damaged

    @property
    def dataset(self) -> str:
        return self.path.name.rsplit("-", 2)[0]


class FeatureStore:
    """Features on disk, found by what they depend on.

    Nothing in the folder is needed: what cannot be read is computed, and what cannot be written is used all the same.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path_of(self, key: Mapping[str, Any]) -> Path:
        """The file for `key`, all that features depend on as plain values, among them dataset, images and views."""
        digest = hashlib.blake2b(_text(key).encode(), digest_size=16).hexdigest()
        dataset = re.sub(r"[^\w.+-]", "_", key["dataset"])
        return self.folder / f"{dataset}-{key['images']}-{digest}.safetensors"

    def fetch(
        self,
        key: Mapping[str, Any],
        backbone: str,
        compute: Callable[[Callable[[], None]], Tensor],
        unchanged: Callable[[], bool] = lambda: True,
    ) -> tuple[Tensor, bool]:
        """The features for `key` (see `path_of`), and whether they were stored before.

        Of several processes that need the same features at once, one computes them and the others wait.

        Args:
            backbone: its name, for people.
            compute: called where they are not stored, with a function to call now and then as a sign of life.
            unchanged: whether the images still are those of `key`; others' features are not stored.
        """
        path, about = self.path_of(key), f"{key['dataset']}, {backbone}, {key['precision']}"
        if (features := _read(path, key, about)) is not None:
            return features, True
        with _turn(path) as alive:
            if (features := _read(path, key, about)) is not None:
                return features, True
            start = time.perf_counter()
            features = compute(alive)
            line = f"{_what(features, about)} computed in {time.perf_counter() - start:.1f} s,"
            if unchanged():
                _write(path, {"key": _text(key), "backbone": backbone}, features, line)
            else:
                print(f"{line} not stored: the images have changed meanwhile")
        return features, False

    def entries(self) -> list[Entry]:
        """All files, by name."""
        found = []
        for path in sorted(self.folder.glob("*.safetensors")):
            if not _NAME.fullmatch(path.name):
                continue
            with suppress(FileNotFoundError):  # another process deletes it
                stat = path.stat()
                found.append(Entry(path, stat.st_size, stat.st_mtime, _info(path)))
        return found

    def remove(self, entry: Entry) -> None:
        """Delete a file; a process that uses it keeps its memory."""
        entry.path.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Delete what killed processes left."""
        remove_temporaries(self.folder)
        for file in self.folder.glob(".*.safetensors.lock"):
            file.unlink(missing_ok=True)


# ---- files -----------------------------------------------------------------------------------------------------


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def _bytes(features: Tensor) -> Any:
    """An array of the bytes, without a copy."""
    import torch

    return features.contiguous().view(-1).view(torch.uint8).numpy()


def _checksum(features: Tensor) -> str:
    return f"{zlib.crc32(_bytes(features)):08x}"


def _map(path: Path) -> tuple[Tensor, dict[str, str]]:
    """The tensor of a file, in memory that the system reads from it when it is used, and the metadata."""
    import torch

    with safe_open(path, "pt") as file:  # checks the whole header
        metadata, found = file.metadata() or {}, file.get_slice(TENSOR)
        shape, dtype = found.get_shape(), {name: dtype for dtype, name in _DTYPES.items()}[found.get_dtype()]
    data = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    start = 8 + int.from_bytes(bytes(data[:8].tolist()), "little")
    return data[start:].view(getattr(torch, dtype)).view(shape), metadata


def _read(path: Path, key: Mapping[str, Any], about: str) -> Tensor | None:
    """The features in a file; None if there is none, or a damaged one, which a line is printed about."""
    try:
        features, metadata = _map(path)
        shape = [*([key["views"]] if key["views"] else []), key["images"]]
        known = (_text(key), _checksum(features), shape)
        if (metadata.get("key"), metadata.get("checksum"), list(features.shape[:-1])) != known:
            raise ValueError("its content has changed since it was written")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, RuntimeError, SafetensorError) as error:
        _say_once(f"{path} is damaged, its image features are computed again ({error})")
        return None
    with suppress(OSError):  # a folder that cannot be written to
        os.utime(path)
    _say_once(f"{_what(features, about)} read from {path}")
    return features


def _write(path: Path, about: Mapping[str, str], features: Tensor, line: str) -> None:
    """Write a file and say so, or why not. The bytes are laid out here to be aligned, which the library does not do."""
    data = _bytes(features)
    header = {
        "__metadata__": {**about, "checksum": _checksum(features), "made": str(time.time())},
        TENSOR: {
            "dtype": _DTYPES[str(features.dtype).removeprefix("torch.")],
            "shape": [*features.shape],
            "data_offsets": [0, len(data)],
        },
    }
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    try:
        with atomic_write(path, sync=False) as file:  # a file that a power cut leaves empty is noticed
            file.write(len(text).to_bytes(8, "little") + text)
            file.write(data)
    except OSError as error:
        print(f"{line} not stored: {error}")
    else:
        print(f"{line} stored in {path}")


def _info(path: Path) -> dict[str, Any] | None:
    """What is in a file, by its metadata; None if it is damaged."""
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
        key = json.loads(metadata["key"])
        counts = {"images": int(key["images"]), "views": int(key["views"])}
        return {**key, **counts, "backbone": metadata["backbone"], "made": float(metadata["made"])}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _what(features: Tensor, about: str) -> str:
    images = " views of ".join(f"{count:,}" for count in features.shape[:-1])
    return f"Image features of {images} images ({about}, {readable_size(features.nbytes)})"


_said: set[str] = set()


def _say_once(line: str) -> None:
    if line not in _said:  # a validation set is read in every epoch
        _said.add(line)
        print(line)


# ---- one process computes, others wait -------------------------------------------------------------------------


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@contextmanager
def _turn(path: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock of a file, which ends with this process; go on without where locks do not work.

    Yields:
        A function to call now and then as a sign of life.
    """
    from filelock import FileLock

    file = _lock_file(path)
    lock = FileLock(file)
    with suppress(OSError, NotImplementedError):  # a folder that cannot be written to, a file system without locks
        mkdir_if_missing(path.parent)
        _acquire(lock, path)

    def alive() -> None:
        with suppress(OSError):
            os.utime(file)

    try:
        alive()
        yield alive
    finally:
        if lock.is_locked:
            with suppress(OSError):  # on Windows, while another process waits for it
                file.unlink()
            lock.release()


def _acquire(lock: FileLock, path: Path) -> None:
    """Acquire a lock, or give up when its holder has given no sign of life for a while."""
    from filelock import Timeout

    while True:
        try:
            lock.acquire(blocking=False)
            return
        except Timeout:
            _say_once(f"Waiting for another process, which computes image features for {path}")
        with suppress(FileNotFoundError):
            if time.time() - os.stat(lock.lock_file).st_mtime > PATIENCE:
                return
        time.sleep(_LOOK)

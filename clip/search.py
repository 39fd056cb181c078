"""Finding a model's weights: the cache folder, OpenAI's address, the Hugging Face hub, in this order."""

import contextlib
import difflib
import os
import urllib.parse
import urllib.request
import warnings
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from dassl.utils.download import DownloadError, download_url, fetch_from_hub, file_checksum, hub_address
from dassl.utils.files import atomic_write
from dassl.utils.names import bare

from .releases import HUB_FILE, MODELS, RELEASES, Release
from .weights import read, stated_activation

DEFAULT_CACHE = "~/.cache/clip"
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors")


def load_state_dict(name_or_path: str | os.PathLike[str], download_root: str | None = None) -> dict[str, Tensor]:
    """Return the weights of a model in OpenAI's layout, on the CPU, in the precision they are stored in.

    Args:
        name_or_path: one of `MODELS`, or a file (TorchScript archive, state dict, safetensors).
        download_root: cache folder; `~/.cache/clip` by default.

    Raises:
        ValueError: unknown name, or a file that does not hold such weights.
        FileNotFoundError: there is no such file, or the weights could not be found anywhere.
    """
    name = os.fspath(name_or_path)
    if name in MODELS:
        return read(find(MODELS[name], download_root))
    if os.path.isfile(name):
        return read(Path(name))
    if name.lower().endswith(WEIGHT_SUFFIXES):
        raise FileNotFoundError(f"no weights file at {os.path.abspath(name)!r}; check the path")
    spelled = {bare(model): model for model in MODELS}
    closest = [spelled[key] for key in difflib.get_close_matches(bare(name), spelled, 3, 0.5)]
    raise ValueError(
        f"unknown CLIP model {name!r}: neither a name nor a file. "
        f"Closest names: {', '.join(closest) or 'none'}. All: {', '.join(MODELS)}"
    )


def find_activation(name_or_path: str | os.PathLike[str]) -> str:
    """The activation of a model's MLPs, "quick_gelu" or "gelu": OpenAI's, or what is stated next to a file.

    Warns where nothing is stated, but the path names LAION, whose weights are mostly trained with "gelu".
    """
    name = os.fspath(name_or_path)
    stated = None if name in MODELS else stated_activation(Path(name))
    if stated is None and name not in MODELS and "laion" in name.lower():
        warnings.warn(
            f"{name} is read as weights with QuickGELU, OpenAI's activation; those that open_clip trained on LAION "
            "have plain GELU unless their name says quickgelu. Set MODEL.BACKBONE.ACTIVATION (or clip.load's "
            "activation) to gelu or quick_gelu",
            stacklevel=3,
        )
    return stated or "quick_gelu"


def find(url: str, download_root: str | None = None) -> Path:
    """Return the path of a model's weights, downloaded if there is no valid copy in the cache folder.

    The file is OpenAI's TorchScript archive, or `<stem>.hub.pt`, the hub's copy as a plain state dict.

    Args:
        url: an address of `MODELS`, a `file:` address, or any other address of weights.
        download_root: cache folder; `~/.cache/clip` by default.

    Raises:
        FileNotFoundError: lists every place tried, why it failed, and what to do.
        ValueError: the cache folder has other weights under OpenAI's file name.
        OSError: the cache folder cannot be written.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        path = Path(urllib.request.url2pathname(parts.path))
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing from this installation; reinstall the package")
        return path
    release = next((release for release in RELEASES.values() if release.url == url), None)
    root = Path(download_root or DEFAULT_CACHE).expanduser()
    file = release.file if release else os.path.basename(parts.path)
    tried: list[str] = []
    if cached := _cached(root, file, release, []):
        return cached
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{file}.lock"):
            # another process may have downloaded it while this one waited
            found = _cached(root, file, release, tried) or _downloaded(url, root / file, release, tried)
    except OSError as error:
        raise OSError(
            f"cannot write the cache folder {root}: {error}; make it writable, or give another folder"
        ) from error
    if found is None:
        raise FileNotFoundError(_not_found(url, root, file, release, tried))
    return found


def _hub_copy(root: Path, file: str) -> Path:
    return root / f"{Path(file).stem}.hub.pt"


def _cached(root: Path, file: str, release: Release | None, tried: list[str]) -> Path | None:
    path, hub_copy = root / file, _hub_copy(root, file)
    if path.is_file():
        if release is None or _checksum_holds(path, release.sha256):
            return path
        _refuse_other_weights(path, release)
        tried.append(f"{path}: not OpenAI's file (its SHA-256 is not {release.sha256}), perhaps truncated")
    else:
        tried.append(f"{path}: no such file")
    if hub_copy.is_file():
        return hub_copy
    manual = root / f"{Path(file).stem}.safetensors"
    if manual.is_file():
        return _store_hub_copy(manual, hub_copy)
    return None


def _refuse_other_weights(path: Path, release: Release) -> None:
    """Raise a ValueError if a file under OpenAI's name is whole: weights of one's own, which must not be replaced."""
    try:
        read(path)
    except ValueError:
        return  # truncated or damaged: to be downloaded again
    raise ValueError(
        f"{path} holds weights, but not OpenAI's (its SHA-256 is not {release.sha256}). To use them, move the file out "
        "of the cache folder and pass its path as --backbone (MODEL.BACKBONE.NAME, or clip.load's name); to use "
        "OpenAI's, move or delete it"
    )


def _checksum_holds(path: Path, sha256: str) -> bool:
    """Check a file once: the result is kept next to it, and is valid while its size and time are unchanged."""
    status = path.stat()
    seal = f"{sha256} {status.st_size} {status.st_mtime_ns}"
    record = path.with_name(path.name + ".sha256")
    if record.is_file() and record.read_text(errors="replace") == seal:
        return True
    if file_checksum(path, "sha256") != sha256:
        return False
    with contextlib.suppress(OSError):  # a cache folder that cannot be written
        record.write_text(seal)
    return True


def _downloaded(url: str, path: Path, release: Release | None, tried: list[str]) -> Path | None:
    """Download the weights from OpenAI or from the hub; if both fail, add the reasons to `tried` and return None."""
    try:
        download_url(url, path, f"sha256:{release.sha256}" if release else "")
        return path
    except DownloadError as error:
        tried.append(str(error))
    if release is None:
        return None
    try:
        return _store_hub_copy(fetch_from_hub(release.hub, HUB_FILE), _hub_copy(path.parent, path.name))
    except (DownloadError, ValueError) as error:
        tried.append(str(error))
        return None


def _store_hub_copy(source: Path, target: Path) -> Path:
    """Write safetensors as a plain state dict that `torch.load` reads, atomically."""
    weights = read(source)
    with atomic_write(target) as file:
        torch.save(weights, file)
    return target


def _not_found(url: str, root: Path, file: str, release: Release | None, tried: list[str]) -> str:
    lines = ["the weights could not be found. Tried:", *(f"  - {place}" for place in tried)]
    lines += ["On a machine with network access, download", f"  {url}", f"and put it at {root / file}"]
    if release:
        lines += [
            f"or {hub_address()}/{release.hub}/resolve/main/{HUB_FILE}",
            f"and put it at {root / file}".removesuffix(".pt") + ".safetensors",
        ]
        lines.append("(HF_ENDPOINT=<address> names a mirror of the hub), or give the path of a weights file")
    return "\n".join(lines)

"""Finding and reading a model's weights, of OpenAI's in the cache folder, at OpenAI's address, then at the hub."""

import contextlib
import os
import urllib.parse
import urllib.request
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from dassl.utils.download import DownloadError, download_url, fetch_from_hub, file_checksum, hub_address
from dassl.utils.files import atomic_write

from .model import CLIP, from_state_dict
from .origins import Origin, origin_of
from .releases import HUB_FILE, MODELS, RELEASES, Release
from .weights import Weights, read, read_weights

DEFAULT_CACHE = "~/.cache/clip"
HUB_COPY = ".hub.pt"  # ends the name of the hub's copy of OpenAI's weights in the cache folder


def load_state_dict(name_or_path: str | os.PathLike[str], download_root: str | None = None) -> dict[str, Tensor]:
    """Return the weights of a model in OpenAI's layout, on the CPU, in the precision they are stored in.

    Args:
        name_or_path: one of `MODELS`, open_clip's ARCHITECTURE/TAG, hf-hub:OWNER/NAME, a folder, or a file (TorchScript
            archive, state dict, safetensors).
        download_root: cache folder of OpenAI's models; `~/.cache/clip` by default.

    Raises:
        ValueError: unknown name, or a file that does not hold such weights.
        FileNotFoundError: there is no such file, or the weights could not be found anywhere.
    """
    return read(find_weights(name_or_path, download_root))


def find_weights(name_or_path: str | os.PathLike[str], download_root: str | None = None) -> Path:
    """Return the path of the weights that `load_state_dict` reads, with its arguments and errors."""
    return _find_weights(origin_of(name_or_path), download_root)


def _find_weights(origin: Origin, download_root: str | None) -> Path:
    if origin.url:
        return find(origin.url, download_root)
    if origin.folder:
        return origin.folder.weights()
    assert origin.file
    return origin.file


def load_model(name_or_path: str | os.PathLike[str], activation: str = "", download_root: str | None = None) -> CLIP:
    """Return a model as its configuration describes it, on the CPU, in fp32 and eval mode.

    Args:
        name_or_path: as for `load_state_dict`.
        activation: "quick_gelu" or "gelu", instead of the configuration's or where there is none.
        download_root: cache folder of OpenAI's models; `~/.cache/clip` by default.

    Raises:
        ValueError: unknown name, a model that does not fit, weights that are none of a CLIP or of another one than
            described, or nothing states their activation.
        FileNotFoundError: there is no such file, or the weights could not be found anywhere.
    """
    origin = origin_of(name_or_path)
    description = origin.description()  # first, since it may say that the weights do not fit
    path = _find_weights(origin, download_root)
    weights = read_weights(path)
    if description and activation:
        description = description.with_activation(activation)
    model = from_state_dict(weights.tensors, None, activation or "quick_gelu", copy=False, description=description)
    if not (activation or description or origin.url or _is_of_openai(path, weights)):
        raise ValueError(
            f"{path} does not tell which activation it was trained with: QuickGELU, as OpenAI's weights, or GELU, as "
            "most of open_clip's. Its features would be wrong with the other one. Set MODEL.BACKBONE.ACTIVATION "
            "(clip.load's activation) to quick_gelu or gelu, or put the model's open_clip_config.json or config.json "
            "next to the file"
        )
    return model


def _is_of_openai(path: Path, weights: Weights) -> bool:
    """Whether a file is one of OpenAI's archives or, by its name, the hub's copy of one."""
    copies = [_hub_copy(path.parent, release.file) for release in RELEASES.values()]
    return weights.of_openai or path in copies or path.as_uri() in MODELS.values()


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
    return root / f"{Path(file).stem}{HUB_COPY}"


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

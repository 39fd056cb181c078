"""Where CLIP's weights are, and how they are read.

`find` looks in the cache folder, at OpenAI's address and at the Hugging Face hub, in this order; `read` turns any
of the formats found there into plain CPU tensors, and nothing that a file holds is executed.
"""

import contextlib
import difflib
import os
import urllib.parse
import urllib.request
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock
from torch import Tensor

from .download import DownloadError, fetch, fetch_from_hub, file_sha256, hub_address, move_into_place

DEFAULT_CACHE = "~/.cache/clip"
OPENAI_ADDRESS = "https://openaipublic.azureedge.net/clip/models"
HUB_FILE = "open_clip_model.safetensors"
# OpenAI's archives hold these three numbers as tensors; `attn_mask` is a constant that some exports keep
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors")


class Release(NamedTuple):
    """One of the models that OpenAI released."""

    file: str
    sha256: str
    hub: str  # Hugging Face repository that holds the same weights

    @property
    def url(self) -> str:
        return f"{OPENAI_ADDRESS}/{self.sha256}/{self.file}"


RELEASES = {
    "RN50": Release(
        "RN50.pt",
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        "timm/resnet50_clip.openai",
    ),
    "RN101": Release(
        "RN101.pt",
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        "timm/resnet101_clip.openai",
    ),
    "RN50x4": Release(
        "RN50x4.pt",
        "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
        "timm/resnet50x4_clip.openai",
    ),
    "RN50x16": Release(
        "RN50x16.pt",
        "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
        "timm/resnet50x16_clip.openai",
    ),
    "RN50x64": Release(
        "RN50x64.pt",
        "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
        "timm/resnet50x64_clip.openai",
    ),
    "ViT-B/32": Release(
        "ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        "timm/vit_base_patch32_clip_224.openai",
    ),
    "ViT-B/16": Release(
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "timm/vit_base_patch16_clip_224.openai",
    ),
    "ViT-L/14": Release(
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        "timm/vit_large_patch14_clip_224.openai",
    ),
    "ViT-L/14@336px": Release(
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "timm/vit_large_patch14_clip_336.openai",
    ),
}
# Name -> address. ViT-Micro/8 is a demonstration that comes with the package: docs/BACKBONES.md.
MODELS = {name: release.url for name, release in RELEASES.items()}
MODELS["ViT-Micro/8"] = Path(__file__).resolve().with_name("ViT-Micro-8.pt").as_uri()


def load_state_dict(name_or_path: str | os.PathLike[str], download_root: str | None = None) -> dict[str, Tensor]:
    """Weights of a model in OpenAI's layout, as plain CPU tensors in the precision they are stored in.

    Args:
        name_or_path: one of `MODELS`, or a file (TorchScript archive, state dict, safetensors).
        download_root: cache folder; `~/.cache/clip` by default.

    Raises:
        ValueError: unknown name, or a file that is not such weights.
        FileNotFoundError: no such file, or none of the places has the weights.
    """
    name = os.fspath(name_or_path)
    if name in MODELS:
        return read(find(MODELS[name], download_root))
    if os.path.isfile(name):
        return read(Path(name))
    if name.lower().endswith(WEIGHT_SUFFIXES):
        raise FileNotFoundError(f"no file of weights at {os.path.abspath(name)!r}; check the path")
    spelled = {_bare(model): model for model in MODELS}
    closest = [spelled[bare] for bare in difflib.get_close_matches(_bare(name), spelled, 3, 0.5)]
    raise ValueError(
        f"unknown CLIP model {name!r}: neither a name nor a file. "
        f"Closest names: {', '.join(closest) or 'none'}. All: {', '.join(MODELS)}"
    )


def _bare(name: str) -> str:
    """A model's name without the punctuation that people spell differently."""
    return "".join(character for character in name.lower() if character.isalnum())


def find(url: str, download_root: str | None = None) -> Path:
    """Path of a model's weights, fetched if no valid copy is in the cache folder.

    The file is one that `torch.jit.load` or `torch.load` reads: OpenAI's archive, or `<stem>.hub.pt`, the hub's
    copy as a plain state dict.

    Args:
        url: an address of `MODELS`, a `file:` address, or any other address of weights.
        download_root: cache folder.

    Raises:
        FileNotFoundError: every place tried, why it failed, and what to do.
        OSError: the cache folder cannot be written.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        path = Path(urllib.request.url2pathname(parts.path))
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing from this installation; install the package again")
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
            # another process may have fetched it while this one waited
            found = _cached(root, file, release, tried) or _fetched(url, root / file, release, tried)
    except OSError as error:
        raise OSError(f"cannot write the cache folder {root}: {error}; free it, or give another folder") from error
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
        tried.append(f"{path}: not OpenAI's file (its SHA-256 is not {release.sha256}), perhaps cut short")
    else:
        tried.append(f"{path}: no such file")
    if hub_copy.is_file():
        return hub_copy
    manual = root / f"{Path(file).stem}.safetensors"
    if manual.is_file():
        return _store_hub_copy(manual, hub_copy)
    return None


def _checksum_holds(path: Path, sha256: str) -> bool:
    """Check a file once: the result is remembered beside it, for as long as its size and time stay."""
    status = path.stat()
    seal = f"{sha256} {status.st_size} {status.st_mtime_ns}"
    memory = path.with_name(path.name + ".sha256")
    if memory.is_file() and memory.read_text(errors="replace") == seal:
        return True
    if file_sha256(path) != sha256:
        return False
    with contextlib.suppress(OSError):  # a cache folder that cannot be written
        memory.write_text(seal)
    return True


def _fetched(url: str, path: Path, release: Release | None, tried: list[str]) -> Path | None:
    """The weights from OpenAI's address, else from the hub; None after noting in `tried` why neither worked."""
    print(f"Fetching {url} to {path}")
    try:
        fetch(url, path, release.sha256 if release else None)
        return path
    except DownloadError as error:
        tried.append(f"{url}: {error}")
    if release is None:
        return None
    try:
        return _store_hub_copy(fetch_from_hub(release.hub, HUB_FILE), _hub_copy(path.parent, path.name))
    except (DownloadError, ValueError) as error:
        tried.append(f"Hugging Face hub {release.hub} at {hub_address()}: {error}")
        return None


def _store_hub_copy(source: Path, target: Path) -> Path:
    """Write safetensors as a plain state dict that `torch.load` reads, whole or not at all."""
    weights = read(source)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        torch.save(weights, temporary)
        move_into_place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _not_found(url: str, root: Path, file: str, release: Release | None, tried: list[str]) -> str:
    lines = ["the weights could not be found. Tried:", *(f"  - {place}" for place in tried)]
    lines += ["On a machine with a connection, download", f"  {url}", f"and put it at {root / file}"]
    if release:
        lines += [
            f"or {hub_address()}/{release.hub}/resolve/main/{HUB_FILE}",
            f"and put it at {root / file}".removesuffix(".pt") + ".safetensors",
        ]
        lines.append("(HF_ENDPOINT=<address> names a mirror of the hub), or give the path of a file of weights")
    return "\n".join(lines)


def read(path: Path) -> dict[str, Tensor]:
    """Tensors of a TorchScript archive, a saved state dict (also inside {"state_dict": …}) or safetensors.

    Raises:
        ValueError: the file is cut short, or is something else.
    """
    try:
        tensors = _read_any(path)
    except Exception as error:  # broken files make the readers raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"cannot read weights from {path} ({path.stat().st_size:,} bytes): {reason}. Expected a TorchScript "
            "archive, a state dict saved by torch.save, or safetensors. If it was cut short, remove it and fetch "
            "it again"
        ) from error
    strangers = [str(key) for key, value in tensors.items() if not isinstance(value, Tensor)]
    if strangers or not tensors:
        raise ValueError(
            f"{path} holds no state dict: expected named tensors, found "
            + (f"other things at {', '.join(strangers[:5])}" if strangers else "nothing")
        )
    tensors = {key.removeprefix("module."): value.detach() for key, value in tensors.items()}
    return {key: value for key, value in tensors.items() if key not in NOT_WEIGHTS}


def _read_any(path: Path) -> Mapping[str, Tensor]:
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # safetensors: eight bytes of header length, then JSON
        from safetensors.torch import load_file

        return load_file(path)
    if _is_torchscript(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location="cpu").state_dict()
    content = torch.load(path, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping):
        raise TypeError(f"it holds a {type(content).__name__}")
    return content


def _is_torchscript(path: Path) -> bool:
    """Whether `path` is a TorchScript archive; one that runs code of its own while it is loaded is refused."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if not any(name.endswith("/constants.pkl") for name in names):
            return False
        code = [name for name in names if "/code/" in name and name.endswith(".py")]
        if any(b"def __setstate__" in archive.read(name) for name in code):
            raise ValueError("a TorchScript archive that runs code while loading, which CLIP's do not")
    return True

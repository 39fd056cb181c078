"""What a model's name means: a model of OpenAI, one of open_clip, a repository of the hub, a local folder or a file."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from dassl.utils.download import DownloadError, fetch_from_hub
from dassl.utils.names import bare, closest_hint, first_few

from .configuration import CONFIGURATIONS, Description, NoConfigurationError, describe
from .releases import MODELS, RELEASES, open_clip_models

HUB = "hf-hub:"  # starts the names of the hub's repositories, as in open_clip
# Files of weights under the names that open_clip and transformers give them, the preferred ones first
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors")


class Folder:
    """A local folder with a model."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, file: str) -> Path | None:
        """The path of one of its files, None if it has no such file."""
        return path if (path := self.path / file).is_file() else None

    def description(self) -> Description | None:
        """What its configuration states, None if it has none."""
        path = next(filter(None, map(self.get, CONFIGURATIONS)), None)
        return describe(path, self.get) if path else None

    def weights(self) -> Path:
        """The path of its weights: those with a usual name, or else the only ones.

        Raises:
            FileNotFoundError: there are none, or several.
            ValueError: they are in several files.
        """
        if usual := self._usual_weights():
            return usual
        others = [path for path in sorted(self.path.iterdir()) if path.name.lower().endswith(WEIGHT_SUFFIXES)]
        if len(others) == 1:
            return others[0]
        raise FileNotFoundError(
            f"the folder {self.path} has none of the weights {', '.join(WEIGHTS)}, "
            + (f"but {first_few(path.name for path in others)}: give the path of one" if others else "nor any others")
        )

    def _usual_weights(self) -> Path | None:
        if usual := next(filter(None, map(self.get, WEIGHTS)), None):
            return usual
        if index := next(filter(None, (self.get(f"{name}.index.json") for name in WEIGHTS)), None):
            raise ValueError(
                f"{index} lists weights in several files, which are not read. Write them into one: "
                'CLIPModel.from_pretrained(…).save_pretrained(FOLDER, max_shard_size="50GB")'
            )
        return None


class Repository(Folder):
    """A repository of the hub: its files are read from the hub's cache, or fetched."""

    def __init__(self, name: str) -> None:
        super().__init__(Path(name))
        self.name = name
        self.tried = ""  # why the last file was not found

    def get(self, file: str) -> Path | None:
        try:
            return fetch_from_hub(self.name, file)
        except DownloadError as error:
            self.tried = str(error)
            if error.status in (None, 404):  # no such file, or no connection: what is cached is enough then
                return None
            raise self._missing(file) from error

    def description(self) -> Description:
        found = super().description()
        if found is None:
            raise self._missing(" or ".join(CONFIGURATIONS))
        return found

    def weights(self) -> Path:
        if usual := self._usual_weights():
            return usual
        raise self._missing(" or ".join(WEIGHTS))

    def _missing(self, file: str) -> FileNotFoundError:
        return FileNotFoundError(
            f"{HUB}{self.name}: {file} could not be fetched. {self.tried}. Check the name. Without a connection, or if "
            f"the repository asks for a login, download it elsewhere (hf download {self.name} --local-dir FOLDER), and "
            "give the folder"
        )


@dataclass(frozen=True)
class Origin:
    """Where a model comes from; one of `url`, `file` and `folder` is set.

    Attributes:
        label: what checkpoints call it. A repository and a local copy of it have the same.
        url: an address of `MODELS`.
        file: the path of its weights.
    """

    label: str
    url: str = ""
    file: Path | None = None
    folder: Folder | None = None

    def description(self) -> Description | None:
        """What the model's configuration states, None if it has none. That of a repository is fetched.

        Raises:
            ValueError: the model does not fit, or the configuration is broken; see `clip.configuration.describe`.
            FileNotFoundError: the repository's configuration could not be fetched.
        """
        if self.folder:
            return self.folder.description()
        if self.file is None:
            return None
        try:
            return Folder(self.file.parent).description()
        except NoConfigurationError:
            if self.file.name in WEIGHTS:
                raise
            return None  # next to weights of another name, a config.json may be of anything


def origin_of(name_or_path: str | os.PathLike[str]) -> Origin:
    """What a name or path means. The name of a model goes before a file or folder of the same name.

    Raises:
        ValueError: it is none of a name, a file and a folder; the message has the closest names.
        FileNotFoundError: it is the path of weights, but there is no such file.
    """
    name = os.fspath(name_or_path)
    if name in MODELS:
        return Origin(name, url=MODELS[name])
    if name.startswith(HUB):
        return _of_repository(name.removeprefix(HUB))
    architecture, _, tag = name.partition("/")
    if repository := open_clip_models().get(architecture, {}).get(tag):
        return _of_repository(repository)
    path = Path(os.path.abspath(name))
    if path.is_file():
        return Origin(path.parent.name if path.name in WEIGHTS else path.name, file=path)
    if name and path.is_dir():
        return Origin(path.name, folder=Folder(path))
    if name.lower().endswith(WEIGHT_SUFFIXES):
        raise FileNotFoundError(f"no weights file at {str(path)!r}; check the path")
    raise ValueError(_unknown(name, architecture, tag))


def _of_repository(name: str) -> Origin:
    if of_openai := next((model for model, release in RELEASES.items() if release.hub == name), None):
        return origin_of(of_openai)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"{HUB}{name} names no repository of the hub, expected {HUB}OWNER/NAME")
    return Origin(name.partition("/")[2], folder=Repository(name))


def _unknown(name: str, architecture: str, tag: str) -> str:
    known = open_clip_models()
    tags = known.get(architecture, {})
    if tag and tags:
        hint = closest_hint(tag, tags)
        return f"unknown CLIP model {name!r}: open_clip's {architecture} has no {tag!r}{hint} Tags: {', '.join(tags)}"
    spelled = {bare(model): model for model in MODELS}
    closest = [spelled[key] for key in difflib.get_close_matches(bare(name), spelled, 3, 0.5)]
    pairs = {bare(f"{model}/{tag}"): f"{model}/{tag}" for model, tags in known.items() for tag in tags}
    closest += [pairs[key] for key in difflib.get_close_matches(bare(name), pairs, 2, 0.8)]
    with_tags = f"open_clip's {name} needs a tag: {', '.join(f'{name}/{tag}' for tag in tags)}. " if tags else ""
    return (
        f"unknown CLIP model {name!r}: neither a name, a file nor a folder. "
        f"Closest names: {', '.join(closest) or 'none'}. {with_tags}All: {', '.join(MODELS)}; open_clip's as "
        f"ARCHITECTURE/TAG, and repositories of the hub as {HUB}OWNER/NAME"
    )

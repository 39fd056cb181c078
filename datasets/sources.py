"""Where a dataset's files come from. Each dataset's module lists its sources for `python -m datasets prepare`."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# A public copy of all datasets except ImageNet: one archive per dataset, named like its folder.
HUB_COPY = "zhengli97/prompt_learning_dataset"


def tool_command(verb: str, name: str, root: str | Path) -> str:
    """The shell command that prepares or checks a dataset in a folder of datasets, for messages."""
    return f"python -m datasets {verb} {name} --root {shlex.quote(str(root))}"


def drive(file_id: str) -> str:
    """The URL of a file on Google Drive."""
    return f"https://drive.google.com/uc?id={file_id}"


@dataclass(frozen=True)
class Source:
    """One file to download: an archive that is unpacked, or a file that is copied.

    Attributes:
        file: its name, by which an archive passed with --archive is recognised.
        gives: path in the dataset's folder that exists when it is done.
        urls: tried in this order; if empty, the user must provide the file (a login is needed).
        checksum: "md5:…" or "sha256:…"; "" if none is published.
        inside: folder in the archive whose content is used; "" for all of it.
        into: folder in the dataset's folder that this content is moved to.
        arrange: called with the folder of unpacked files and the dataset's folder, to rearrange the former.
    """

    file: str
    gives: str
    urls: tuple[str, ...] = ()
    checksum: str = ""
    inside: str = ""
    into: str = ""
    arrange: Callable[[Path, Path], None] | None = None

    @property
    def is_split(self) -> bool:
        """Whether it is a published split file."""
        return self.gives.startswith("split_zhou_")


def split_source(dataset: str, file_id: str) -> Source:
    """The published split of a dataset, as CoOp's documentation lists it."""
    name = f"split_zhou_{dataset}.json"
    return Source(name, gives=name, urls=(drive(file_id),))


# The class names of ImageNet and its variants, as CoOp's documentation lists them.
CLASSNAMES = Source("classnames.txt", gives="classnames.txt", urls=(drive("1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF"),))

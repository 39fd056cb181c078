"""Where a dataset's files come from: facts that each dataset's module states, and `python -m datasets prepare` uses."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# A public copy of the datasets but ImageNet: one archive each, named as the dataset's folder.
HUB_COPY = "zhengli97/prompt_learning_dataset"


def drive(file_id: str) -> str:
    """The address of a file on Google Drive."""
    return f"https://drive.google.com/uc?id={file_id}"


@dataclass(frozen=True)
class Source:
    """One file to get: an archive that is unpacked, or a file that is kept as it is.

    Attributes:
        file: its name; an archive that the user already has is recognised by it.
        gives: what is in the dataset's folder when it is done, a relative path.
        urls: addresses, tried in this order; none: the user must bring the file (a login is needed).
        checksum: "md5:…" or "sha256:…"; "" where none is published.
        inside: folder in the archive whose content is taken; "": all of it.
        into: folder below the dataset's folder that this content goes to.
        arrange: called with the unpacked files and the dataset's folder, to sort the former.
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

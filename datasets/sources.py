"""Where a dataset's files come from. Each dataset's module lists its sources for `python -m datasets prepare`."""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

# A public copy of all datasets except ImageNet: one archive per dataset, named like its folder.
HUB_COPY = "zhengli97/prompt_learning_dataset"

# Sizes in MB (10^6 bytes) of the published files, rounded up. What is larger by far is refused: see `allowance`.
SIZES = {
    "102flowers.tgz": 345,
    "annotations.tar.gz": 20,
    "car_devkit.tgz": 1,
    "caltech-101.zip": 138,
    "cars_test.tgz": 978,
    "cars_test_annos_withlabels.mat": 1,
    "cars_train.tgz": 978,
    "cat_to_name.json": 1,
    "classnames.txt": 1,
    "dtd-r1.0.1.tar.gz": 626,
    "EuroSAT.zip": 95,
    "fgvc-aircraft-2013b.tar.gz": 2_754,
    "food-101.tar.gz": 4_997,
    "ILSVRC2012_devkit_t12.tar.gz": 3,
    "ILSVRC2012_img_train.tar": 147_898,
    "ILSVRC2012_img_val.tar": 6_745,
    "ImageNet-Sketch.zip": 7_600,
    "imagelabels.mat": 1,
    "imagenet-a.tar": 688,
    "imagenet-r.tar": 2_193,
    "imagenetv2-matched-frequency.tar.gz": 1_262,
    "images.tar.gz": 792,
    "Partitions.zip": 10,
    "SUN397.tar.gz": 39_200,
    "UCF-101-midframes.zip": 1_000,
}
SPLIT_SIZE = 16  # MB; the largest has 10
MARGIN, EXTRA = 3, 2**26  # a mirror may pack the same files in another way, and add some


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
        instead: other paths in the dataset's folder; if one of them exists, the file is not needed.
        arrange: called with the folder of unpacked files and the dataset's folder, to rearrange the former.
    """

    file: str
    gives: str
    urls: tuple[str, ...] = ()
    checksum: str = ""
    inside: str = ""
    into: str = ""
    arrange: Callable[[Path, Path], None] | None = None
    instead: tuple[str, ...] = ()

    def is_in(self, folder: Path) -> bool:
        """Whether the dataset's folder has what the file gives."""
        return any((folder / path).exists() for path in (self.gives, *self.instead))

    @property
    def size(self) -> int | None:
        """Size in bytes of the published file, rounded up; None if it is not known."""
        size = SPLIT_SIZE if self.is_split else SIZES.get(self.file)
        return None if size is None else size * 10**6

    @property
    def is_split(self) -> bool:
        """Whether it is a published split file."""
        return self.gives.startswith("split_zhou_")


def allowance(sources: Iterable[Source]) -> int | None:
    """The bytes that downloading or unpacking these files may take; None if a size is not known."""
    total = 0
    for source in sources:
        if source.size is None:
            return None
        total += source.size
    return MARGIN * total + EXTRA


def split_source(dataset: str, file_id: str) -> Source:
    """The published split of a dataset, as CoOp's documentation lists it."""
    name = f"split_zhou_{dataset}.json"
    return Source(name, gives=name, urls=(drive(file_id),))


# The class names of ImageNet and its variants, as CoOp's documentation lists them.
CLASSNAMES = Source("classnames.txt", gives="classnames.txt", urls=(drive("1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF"),))

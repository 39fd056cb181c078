"""SUN397 (Xiao et al., 2010): 397 kinds of scenes."""

from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets.base import ClipDataset
from datasets.sources import HUB_COPY, Source, split_source
from datasets.splits import Split, split_trainval
from datasets.text import read_lines, shortened
from datasets.validation import relative_path


@DATASET_REGISTRY.register()
class SUN397(ClipDataset):
    """SUN397. Its Princeton URL is dead; the layouts of several mirrors are recognised."""

    dataset_dir = "sun397"
    dir_aliases = ("SUN397", "sun-397")
    layout = (
        "sun397/{SUN397/<letter>/<scene>/, split_zhou_SUN397.json (or ClassName.txt, Training_01.txt, Testing_01.txt)}"
    )
    expected = (15880, 3970, 19850)
    expected_classes = 397
    some_classes = ("abbey", "airplane_cabin", "zen_garden")
    hub_copy = HUB_COPY
    sources = (
        Source(
            "SUN397.tar.gz",
            gives="SUN397",
            urls=("http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",),
            checksum="md5:8ca2778205c41d23104230ba66911c7a",
        ),
        Source(
            "Partitions.zip",
            gives="Training_01.txt",
            urls=("https://vision.princeton.edu/projects/2010/SUN/download/Partitions.zip",),
            instead=("split_zhou_SUN397.json",),
        ),
        split_source("SUN397", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),
    )

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        places = (folder / "SUN397", folder / "SUN397" / "SUN397", folder)
        lettered = next((place for place in places if _has_letters(place)), None)
        self.image_dir = lettered or self.images_folder(*places)
        self.finish(cfg, self.published_split(self.image_dir, self.build_split))

    def build_split(self) -> Split:
        """The split from the first of the published partitions, with a fifth of its training images for validation."""
        labels = {line[1:]: label for label, (_, line) in enumerate(read_lines(self._list("ClassName.txt")))}
        train, val = split_trainval(self.read_data(self._list("Training_01.txt"), labels))
        return Split(train, val, self.read_data(self._list("Testing_01.txt"), labels))

    def _list(self, name: str) -> Path:
        """One of the text files, which archives put in different places."""
        folder = Path(self.dataset_dir)
        return self.require(*(folder / place / name for place in ("", "Partitions", "SUN397", "SUN397/SUN397")))

    def read_data(self, path: Path, labels: dict[str, int]) -> list[Datum]:
        """The items of a list of ``/<letter>/<scene>[/<kind>]/<image>`` lines.

        The class name of ``abbey/indoor`` is "indoor abbey".

        Raises:
            ValueError: a scene that is not in ``ClassName.txt``.
        """
        items = []
        for number, line in read_lines(path):
            where = f"{path}, line {number}"
            image = relative_path(line.removeprefix("/"), where)
            scene = image.rpartition("/")[0]
            if scene not in labels:
                raise ValueError(
                    f"{where} names the scene {shortened(scene)}, which is not in ClassName.txt: download both again"
                )
            words = reversed(scene.split("/")[1:])  # without the letter
            items.append(Datum(f"{self.image_dir}/{image}", labels[scene], classname=" ".join(words)))
        return items


def _has_letters(folder: Path) -> bool:
    """Whether the folder contains the folders ``a``, ``b``, … in which the scenes are."""
    return folder.is_dir() and any(len(path.name) == 1 and path.is_dir() for path in folder.iterdir())

"""UCF101 (Soomro et al., 2012): 101 actions; the middle frame of every video."""

import re
from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets.base import ClipDataset
from datasets.sources import HUB_COPY, Source, drive, split_source
from datasets.splits import Split, split_trainval


@DATASET_REGISTRY.register()
class UCF101(ClipDataset):
    """The middle frames of UCF101."""

    template = "a photo of a person doing {}."
    dataset_dir = "ucf101"
    dir_aliases = ("UCF101", "UCF-101")
    layout = "ucf101/{UCF-101-midframes/<Action_Name>/, split_zhou_UCF101.json (or ucfTrainTestlist/)}"
    expected = (7639, 1898, 3783)
    expected_classes = 101
    hub_copy = HUB_COPY
    sources = (
        Source(
            "UCF-101-midframes.zip",
            gives="UCF-101-midframes",
            urls=(drive("10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O"),),
        ),
        split_source("UCF101", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"),
    )

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.require(folder / "UCF-101-midframes")
        self.finish(cfg, self.published_split(self.image_dir, self.build_split))

    def build_split(self) -> Split:
        """The split from ``ucfTrainTestlist``: the first of its three, with a fifth of train for validation."""
        lists = self.require(Path(self.dataset_dir) / "ucfTrainTestlist")
        labels = {}
        for line in self.require(lists / "classInd.txt").read_text(encoding="utf-8").splitlines():
            if line.strip():
                label, action = line.split()
                labels[action] = int(label) - 1
        train, val = split_trainval(self.read_data(self.require(lists / "trainlist01.txt"), labels))
        return Split(train, val, self.read_data(self.require(lists / "testlist01.txt"), labels))

    def read_data(self, path: Path, labels: dict[str, int]) -> list[Datum]:
        """The items of a list of ``<ActionName>/<video>.avi`` lines.

        Raises:
            ValueError: an action that is not in ``classInd.txt``.
        """
        items = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            action, video = line.split()[0].split("/")
            if action not in labels:
                raise ValueError(
                    f"{path} names the action {action!r}, which is not in classInd.txt: download both again"
                )
            name = "_".join(re.findall("[A-Z][^A-Z]*", action))
            frame = video.replace(".avi", ".jpg")
            items.append(Datum(f"{self.image_dir}/{name}/{frame}", labels[action], classname=name))
        return items

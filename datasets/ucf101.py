"""UCF101 (Soomro et al., 2012): 101 actions; the middle frame of every video."""

import re
from collections.abc import Iterator
from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets.base import ClipDataset
from datasets.sources import HUB_COPY, Source, drive, split_source
from datasets.splits import Split, split_trainval
from datasets.text import read_lines, shortened
from datasets.validation import check_name, relative_path


@DATASET_REGISTRY.register()
class UCF101(ClipDataset):
    """The middle frames of UCF101."""

    template = "a photo of a person doing {}."
    dataset_dir = "ucf101"
    dir_aliases = ("UCF101", "UCF-101")
    layout = "ucf101/{UCF-101-midframes/<Action_Name>/, split_zhou_UCF101.json (or ucfTrainTestlist/)}"
    expected = (7639, 1898, 3783)
    expected_classes = 101
    some_classes = ("Apply_Eye_Makeup", "Archery", "Yo_Yo")
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
        self.image_dir = self.images_folder(folder / "UCF-101-midframes")
        self.finish(cfg, self.published_split(self.image_dir, self.build_split))

    def build_split(self) -> Split:
        """The split from ``ucfTrainTestlist``: the first of its three, with a fifth of train for validation."""
        lists = self.require(Path(self.dataset_dir) / "ucfTrainTestlist")
        labels = {}
        for where, label, action in self._lines(self.require(lists / "classInd.txt"), "<label from 1> <ActionName>"):
            if not re.fullmatch("[1-9][0-9]{0,2}", label):
                raise ValueError(f"{where}: the label must be an integer from 1, not {shortened(label)}")
            labels[action] = int(label) - 1
        train, val = split_trainval(self.read_data(self.require(lists / "trainlist01.txt"), labels))
        return Split(train, val, self.read_data(self.require(lists / "testlist01.txt"), labels))

    def read_data(self, path: Path, labels: dict[str, int]) -> list[Datum]:
        """The items of a list of ``<ActionName>/<video>.avi`` lines.

        Raises:
            ValueError: an action that is not in ``classInd.txt``.
        """
        items = []
        for where, file, *_ in self._lines(path, "<ActionName>/<video>.avi"):
            action, _, video = file.partition("/")
            if action not in labels:
                raise ValueError(
                    f"{where} names the action {shortened(action)}, which is not in classInd.txt: download both again"
                )
            name = check_name("_".join(re.findall("[A-Z][^A-Z]*", action)), where)
            frame = relative_path(f"{name}/{video.replace('.avi', '.jpg')}", where)
            items.append(Datum(f"{self.image_dir}/{frame}", labels[action], classname=name))
        return items

    @staticmethod
    def _lines(path: Path, form: str) -> Iterator[list[str]]:
        """[where, first word, …] of each line; the line has at least as many words as its form."""
        for number, line in read_lines(path):
            words = line.split()
            if len(words) < len(form.split("> ")):
                raise ValueError(f"{path}, line {number} must be {form!r}, not {shortened(line)}")
            yield [f"{path}, line {number}", *words]

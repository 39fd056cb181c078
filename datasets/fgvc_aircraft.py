"""FGVC-Aircraft (Maji et al., 2013): 100 variants of aircraft; the split is the dataset's own."""

from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets.base import ClipDataset
from datasets.sources import HUB_COPY, Source
from datasets.splits import Split, relocate
from datasets.text import read_lines, shortened
from datasets.validation import check_name, relative_path


@DATASET_REGISTRY.register()
class FGVCAircraft(ClipDataset):
    """FGVC-Aircraft, labelled by variant in the order of ``variants.txt``."""

    template = "a photo of a {}, a type of aircraft."
    dataset_dir = "fgvc_aircraft"
    dir_aliases = ("fgvc-aircraft-2013b", "FGVCAircraft")
    layout = "fgvc_aircraft/{images/, variants.txt, images_variant_{train,val,test}.txt}"
    expected = (3334, 3333, 3333)
    expected_classes = 100
    hub_copy = HUB_COPY
    sources = (
        Source(
            "fgvc-aircraft-2013b.tar.gz",
            gives="images",
            urls=("https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",),
            inside="fgvc-aircraft-2013b/data",
        ),
    )

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        nested = folder / "fgvc-aircraft-2013b" / "data"
        folder = self.require(folder / "images", folder / "data" / "images", nested / "images").parent
        self.image_dir = folder / "images"
        variants = read_lines(self.require(folder / "variants.txt"))
        labels = {name: label for label, (_, name) in enumerate(variants)}
        parts = [self.read_data(self.require(folder / f"images_variant_{part}.txt"), labels) for part in Split._fields]
        self.finish(cfg, relocate(Split(*parts), self.image_dir, folder))

    def read_data(self, path: Path, labels: dict[str, int]) -> list[Datum]:
        """The items of a list of ``<image number> <variant>`` lines.

        Raises:
            ValueError: a variant that is not in ``variants.txt``.
        """
        items = []
        for line_number, line in read_lines(path):
            where = f"{path}, line {line_number}"
            number, _, variant = line.partition(" ")
            if variant not in labels:
                raise ValueError(
                    f"{where} names the variant {shortened(variant)}, which is not in variants.txt: download both again"
                )
            image = relative_path(f"{number}.jpg", where)
            items.append(Datum(f"{self.image_dir}/{image}", labels[variant], classname=check_name(variant, where)))
        return items

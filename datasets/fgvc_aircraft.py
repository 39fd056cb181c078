"""FGVC-Aircraft (Maji et al., 2013): 100 variants of aircraft; the split is the dataset's own."""

from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets.base import ClipDataset
from datasets.sources import HUB_COPY, Source
from datasets.splits import Split, relocate


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
        variants = self.require(folder / "variants.txt").read_text(encoding="utf-8").splitlines()
        labels = {name.strip(): label for label, name in enumerate(line for line in variants if line.strip())}
        parts = [self.read_data(self.require(folder / f"images_variant_{part}.txt"), labels) for part in Split._fields]
        self.finish(cfg, relocate(Split(*parts), self.image_dir, folder))

    def read_data(self, path: Path, labels: dict[str, int]) -> list[Datum]:
        """The items of a list of ``<image number> <variant>`` lines.

        Raises:
            ValueError: a variant that is not in ``variants.txt``.
        """
        items = []
        for line in path.read_text(encoding="utf-8").splitlines():
            number, _, variant = line.strip().partition(" ")
            if not number:
                continue
            if variant not in labels:
                raise ValueError(
                    f"{path} names the variant {variant!r}, which is not in variants.txt: download both again"
                )
            items.append(Datum(f"{self.image_dir}/{number}.jpg", labels[variant], classname=variant))
        return items

"""EuroSAT (Helber et al., 2019): satellite images of ten kinds of land."""

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import ClipDataset
from datasets.listing import class_folder_items
from datasets.sources import HUB_COPY, Source, split_source
from datasets.splits import split_three

NEW_CNAMES = {
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}


@DATASET_REGISTRY.register()
class EuroSAT(ClipDataset):
    """EuroSAT, the RGB version."""

    template = "a centered satellite photo of {}."
    dataset_dir = "eurosat"
    dir_aliases = ("EuroSAT",)
    layout = "eurosat/{2750/<class>/, split_zhou_EuroSAT.json}"
    expected = (13500, 5400, 8100)
    expected_classes = 10
    some_classes = tuple(NEW_CNAMES)
    hub_copy = HUB_COPY
    sources = (
        Source(
            "EuroSAT.zip",
            gives="2750",
            urls=(
                "http://madm.dfki.de/files/sentinel/EuroSAT.zip",
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            ),
            checksum="md5:c8fa014336c82ac7804f0398fcb19387",
        ),
        split_source("EuroSAT", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"),
    )

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.images_folder(folder / "2750", folder / "EuroSAT" / "2750", folder / "EuroSAT_RGB")
        self.finish(
            cfg,
            self.published_split(
                self.image_dir, lambda: split_three(class_folder_items(self.image_dir, new_cnames=NEW_CNAMES))
            ),
        )

"""EuroSAT (Helber et al., 2019): satellite pictures of ten kinds of land."""

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY
from datasets.fewshot import ClipDataset
from datasets.splits import class_folder_items, split_three

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

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.require(folder / "2750", folder / "EuroSAT" / "2750", folder / "EuroSAT_RGB")
        self.finish(
            cfg,
            self.published_split(
                self.image_dir, lambda: split_three(class_folder_items(self.image_dir, new_cnames=NEW_CNAMES))
            ),
        )

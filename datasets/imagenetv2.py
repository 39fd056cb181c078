"""ImageNetV2 (Recht et al., 2019): new photographs of ImageNet's classes, ten each."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.imagenet_variants import ImageNetVariant
from datasets.listing import read_classnames
from datasets.sources import CLASSNAMES, HUB_COPY, Source


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetVariant):
    """ImageNetV2, matched frequency. Its folder names are line numbers, from 0, of ``classnames.txt``."""

    dataset_dir = "imagenetv2"
    dir_aliases = ("imagenet-v2", "ImageNetV2")
    image_folder = "imagenetv2-matched-frequency-format-val"
    layout = f"imagenetv2/{{{image_folder}/<0 … 999>/, classnames.txt (or imagenet/classnames.txt)}}"
    expected = (10000, 0, 10000)
    expected_classes = 1000
    hub_copy = HUB_COPY
    sources = (
        Source(
            "imagenetv2-matched-frequency.tar.gz",
            gives=image_folder,
            urls=(
                "https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz",
                "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",
            ),
        ),
        CLASSNAMES,
    )

    def folder_names(self, names_file: Path) -> dict[str, str]:
        return {str(label): name for label, name in enumerate(read_classnames(names_file).values())}

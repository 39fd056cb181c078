"""ImageNet-R (Hendrycks et al., 2021): renditions (paintings, toys, …) of ImageNet's classes."""

from dassl.data.datasets import DATASET_REGISTRY
from datasets.imagenet_variants import ImageNetVariant
from datasets.sources import CLASSNAMES, HUB_COPY, Source


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetVariant):
    """ImageNet-R, over its own 200 classes."""

    dataset_dir = "imagenet-rendition"
    dir_aliases = ("imagenet_r", "ImageNet-R")
    image_folder = "imagenet-r"
    all_classes = False
    layout = "imagenet-rendition/{imagenet-r/<wnid>/, classnames.txt (or imagenet/classnames.txt)}"
    expected = (30000, 0, 30000)
    expected_classes = 200
    hub_copy = HUB_COPY
    sources = (
        Source(
            "imagenet-r.tar",
            gives="imagenet-r",
            urls=("https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",),
        ),
        CLASSNAMES,
    )

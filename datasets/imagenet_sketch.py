"""ImageNet-Sketch (Wang et al., 2019): sketches of ImageNet's classes."""

from dassl.data.datasets import DATASET_REGISTRY
from datasets.imagenet_variants import ImageNetVariant
from datasets.sources import CLASSNAMES, HUB_COPY, Source


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetVariant):
    """ImageNet-Sketch."""

    dataset_dir = "imagenet-sketch"
    dir_aliases = ("imagenet_sketch", "ImageNet-Sketch", "sketch")
    image_folder = "images"
    layout = "imagenet-sketch/{images/<wnid>/, classnames.txt (or imagenet/classnames.txt)}"
    expected = (50889, 0, 50889)
    expected_classes = 1000
    hub_copy = HUB_COPY
    by_hand = (
        "download ImageNet-Sketch.zip from the link at https://github.com/HaohanWang/ImageNet-Sketch "
        "and pass it to `prepare` with --archive"
    )
    sources = (Source("ImageNet-Sketch.zip", gives="images", inside="sketch", into="images"), CLASSNAMES)

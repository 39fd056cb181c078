"""ImageNet-A (Hendrycks et al., 2021): photographs that ResNets misclassify."""

from dassl.data.datasets import DATASET_REGISTRY
from datasets.imagenet_variants import ImageNetVariant
from datasets.sources import CLASSNAMES, HUB_COPY, Source


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetVariant):
    """ImageNet-A, over its own 200 classes."""

    dataset_dir = "imagenet-adversarial"
    dir_aliases = ("imagenet_a", "ImageNet-A")
    image_folder = "imagenet-a"
    all_classes = False
    layout = "imagenet-adversarial/{imagenet-a/<wnid>/, classnames.txt (or imagenet/classnames.txt)}"
    expected = (7500, 0, 7500)
    expected_classes = 200
    hub_copy = HUB_COPY
    sources = (
        Source(
            "imagenet-a.tar",
            gives="imagenet-a",
            urls=("https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",),
        ),
        CLASSNAMES,
    )

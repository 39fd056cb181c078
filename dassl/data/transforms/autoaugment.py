"""The learned augmentation policies of AutoAugment (Cubuk et al., 2019), under upstream Dassl's names."""

from torchvision.transforms import AutoAugment, AutoAugmentPolicy


class ImageNetPolicy(AutoAugment):
    """A random one of the 25 sub-policies learned on ImageNet."""

    def __init__(self) -> None:
        super().__init__(AutoAugmentPolicy.IMAGENET)


class CIFAR10Policy(AutoAugment):
    """A random one of the 25 sub-policies learned on CIFAR-10."""

    def __init__(self) -> None:
        super().__init__(AutoAugmentPolicy.CIFAR10)


class SVHNPolicy(AutoAugment):
    """A random one of the 25 sub-policies learned on SVHN."""

    def __init__(self) -> None:
        super().__init__(AutoAugmentPolicy.SVHN)

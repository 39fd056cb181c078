"""The steps of `clip.load`'s preprocessing, as callers of OpenAI's package take and change them."""

import numpy as np
import torch
from PIL import Image

import clip
import dassl  # noqa: F401 (makes torchvision importable with a torch of another build)

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8))


def test_the_steps_are_openais_in_their_order() -> None:
    """Each step of ours in place of torchvision's, the others being torchvision's, gives torchvision's result."""
    from torchvision import transforms as T

    _, preprocess = clip.load("ViT-Micro/8", device="cpu")
    theirs = [
        T.Resize(48, interpolation=T.InterpolationMode.BICUBIC),
        T.CenterCrop(48),
        lambda image: image.convert("RGB"),
        T.ToTensor(),
        T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ]
    assert len(preprocess.transforms) == len(theirs)
    for i, step in enumerate(preprocess.transforms):
        mixed = T.Compose([*theirs[:i], step, *theirs[i + 1 :]])
        assert torch.equal(mixed(IMAGE), T.Compose(theirs)(IMAGE)), step
        assert torch.equal(mixed(IMAGE), preprocess(IMAGE))


def test_a_changed_list_is_what_is_applied() -> None:
    """Left out: the normalization, whose numbers undo it: x · std + mean."""
    _, preprocess = clip.load("ViT-Micro/8", device="cpu")
    normalized = preprocess(IMAGE)
    normalize = preprocess.transforms.pop()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalize.mean, normalize.std))
    torch.testing.assert_close(preprocess(IMAGE), normalized * std + mean)
    preprocess.transforms[0].size = 50
    preprocess.transforms.insert(2, lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert preprocess(IMAGE).shape == (3, 48, 48)
    assert clip.load("ViT-Micro/8", device="cpu")[1].transforms[0].size == 48

"""Transforms against torchvision and values computed by hand."""

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from PIL import Image

from dassl.data.transforms import build_transform
from dassl.data.transforms.transforms import (
    AVAI_CHOICES,
    Cutout,
    GaussianNoise,
    InstanceNormalization,
    Random2DTranslation,
)
from tests.dassl.data.pictures import make_cfg

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture
def image():
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 60, 3), dtype=np.uint8))


def clip_cfg(**options):
    return make_cfg(INPUT__INTERPOLATION="bicubic", INPUT__PIXEL_MEAN=MEAN, INPUT__PIXEL_STD=STD, **options)


@pytest.mark.parametrize("seed", range(5))
def test_the_training_transform_is_torchvisions_crop_flip_and_normalisation(image, seed):
    ours = build_transform(clip_cfg())
    reference = T.Compose(
        [
            T.RandomResizedCrop(12, scale=(0.08, 1.0), interpolation=T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ]
    )
    torch.manual_seed(seed)
    expected = reference(image)
    torch.manual_seed(seed)
    assert torch.equal(ours(image), expected)


def test_the_test_transform_is_clips_own(image):
    """Resize the shorter side, center crop, to tensor, normalize."""
    reference = T.Compose(
        [
            T.Resize(12, interpolation=T.InterpolationMode.BICUBIC),
            T.CenterCrop(12),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ]
    )
    assert torch.equal(build_transform(clip_cfg(), is_train=False)(image), reference(image))


def test_random_resized_crop_takes_its_scale_from_the_config():
    transform = build_transform(clip_cfg(INPUT__RRCROP_SCALE=(0.5, 0.9)))
    assert transform.transforms[0].scale == (0.5, 0.9)


@pytest.mark.parametrize("choice", AVAI_CHOICES)
@pytest.mark.parametrize("is_train", [True, False])
def test_every_choice_gives_an_image_of_the_size(image, choice, is_train):
    for seed in range(4):
        torch.manual_seed(seed)
        out = build_transform(make_cfg(INPUT__GB_K=5), is_train=is_train, choices=(choice, "normalize"))(image)
        expected = (3, 12, 12)
        assert out.shape == expected and out.isfinite().all()


def test_the_order_is_upstreams():
    choices = [c for c in AVAI_CHOICES if c not in ("random_crop", "center_crop")]
    names = [type(step).__name__ for step in build_transform(make_cfg(), choices=choices).transforms]
    assert names == [
        *("Random2DTranslation", "RandomResizedCrop", "RandomHorizontalFlip"),
        *("ImageNetPolicy", "CIFAR10Policy", "SVHNPolicy", "RandAugment", "RandAugmentFixMatch", "RandAugment2"),
        *("ColorJitter", "RandomGrayscale", "RandomApply", "ToTensor", "Cutout", "Normalize"),
        *("GaussianNoise", "InstanceNormalization"),
    ]


def test_no_crop_means_a_resize_to_the_size():
    names = [type(step).__name__ for step in build_transform(make_cfg(), choices=("normalize",)).transforms]
    assert names == ["Resize", "ToTensor", "Normalize"]


def test_the_error_for_an_unknown_choice_names_the_closest():
    with pytest.raises(ValueError, match=r"'random_flop' is not available \(did you mean random_flip"):
        build_transform(make_cfg(), choices=("random_flop",))


def test_no_transform():
    assert build_transform(make_cfg(INPUT__NO_TRANSFORM=True)) is None


def test_cutout_zeroes_squares_of_the_length():
    torch.manual_seed(0)
    for _ in range(20):
        zeros = (Cutout(1, 4)(torch.ones(3, 10, 10)) == 0)[0]
        rows, columns = zeros.any(1).sum().item(), zeros.any(0).sum().item()
        assert 2 <= rows <= 4 and 2 <= columns <= 4
        assert zeros.sum().item() == rows * columns


def test_instance_normalization_is_per_channel():
    out = InstanceNormalization()(torch.rand(3, 8, 8) * torch.tensor([1.0, 5.0, 9.0]).view(3, 1, 1))
    assert torch.allclose(out.mean((1, 2)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(out.std((1, 2)), torch.ones(3), atol=1e-5)


def test_gaussian_noise_has_the_mean_and_deviation():
    torch.manual_seed(0)
    noise = GaussianNoise(mean=0.5, std=0.2, p=1.0)(torch.zeros(3, 200, 200))
    assert noise.mean().item() == pytest.approx(0.5, abs=0.005)
    assert noise.std().item() == pytest.approx(0.2, abs=0.005)
    assert torch.equal(GaussianNoise(p=0.0)(torch.zeros(3, 2, 2)), torch.zeros(3, 2, 2))


def test_translation_crops_an_enlarged_image(image):
    torch.manual_seed(0)
    shifted = Random2DTranslation(16, 16, p=1.0)
    results = {shifted(image).tobytes() for _ in range(30)}
    assert len(results) > 3  # up to 3 × 3 places
    assert Random2DTranslation(16, 16, p=0.0)(image).tobytes() == T.Resize((16, 16))(image).tobytes()

"""The frozen towers as a teacher of texts."""

import pytest
import torch

import datasets  # noqa: F401  (registers the datasets)
from dassl.data.datasets import DATASET_REGISTRY
from tests import golden
from tests.paths import needs_golden
from trainers.prompted_clip import independently_prompted, unit
from trainers.prompts import IMAGENET_TEMPLATES_SELECT, fill
from trainers.teacher import TextTeacher, template_of, texts_as_named, texts_of_seven
from trainers.without_data import dataset_without_images


@needs_golden
@pytest.mark.parametrize("file", ["promptsrc_v3_t3", "kgcoop_w8"])
def test_features_equal_the_golden_ones_beside_prompts_in_the_tower(file: str):
    values, meta = golden.read(f"{file}.safetensors")
    clip_model = golden.golden_clip()
    templates = meta.get("templates") or [meta["teacher_template"]]
    teacher = TextTeacher(clip_model, [fill(template, meta["classnames"]) for template in templates])
    model = independently_prompted(clip_model, meta["classnames"], "a photo of a", (2, 2), (3, 3))
    found = teacher.features(model.text_encoder)
    torch.testing.assert_close(found, unit(values["aux.teacher_text"]), rtol=1e-4, atol=1e-6)
    assert not found.requires_grad
    assert teacher.features(model.text_encoder) is found


@needs_golden
@pytest.mark.parametrize("file", ["taskres_a05", "taskres_a10_imagenet", "clap_l2", "clap_l2_imagenet"])
def test_mean_features_equal_the_golden_ones_of_names_with_underscores(file: str):
    values, meta = golden.read(f"{file}.safetensors")
    name = meta["dataset_template"]
    dataset = type(name, (), {"classnames": meta["classnames"], "template": DATASET_REGISTRY.get(name).template})()
    texts = texts_as_named(dataset)
    assert texts == [[template.format(name) for name in meta["classnames"]] for template in meta["templates"]]
    clip_model = golden.golden_clip()
    found = TextTeacher(clip_model, texts).mean_features(clip_model.text_encoder())
    golden.assert_close(found, values["aux.base_text_features"])


class OxfordPets:
    template = "a photo of a {}, a type of pet."


def test_a_template_given_by_the_user_wins_over_the_published_one():
    dataset = OxfordPets()
    assert template_of(dataset, {}) == "a photo of a {}, a type of pet."
    assert template_of(dataset, {"OxfordPets": "a pet: {}."}) == "a pet: {}."
    dataset.template = "my {}."
    assert template_of(dataset, {"OxfordPets": "a pet: {}."}) == "my {}."


@pytest.mark.parametrize("name", ["ImageNet", "ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"])
def test_imagenet_and_its_variants_have_seven_templates_unless_one_is_given(name: str):
    texts = texts_of_seven(dataset_without_images(name, ["tench", "great_white shark"]))
    assert texts == [fill(template, ["tench", "great white shark"]) for template in IMAGENET_TEMPLATES_SELECT]
    assert texts_of_seven(dataset_without_images(name, ["tench"], "one {}.")) == [["one tench."]]


def test_other_data_sets_have_their_own_template():
    pets = dataset_without_images("OxfordPets", ["Abyssinian"])
    assert texts_of_seven(pets) == [["a photo of a Abyssinian, a type of pet."]]
    assert texts_of_seven(dataset_without_images("OxfordPets", ["Abyssinian"], "one {}.")) == [["one Abyssinian."]]

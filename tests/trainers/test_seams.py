"""What a method may rely on when it adds something to the frozen CLIP that is not a prompt."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

import clip
from dassl.data.transforms import build_transform
from dassl.engine.state import changed_tensors, frozen_fingerprints
from dassl.utils import read_image
from tests.trainers.test_methods import NAMES, build, small_clip
from tests.trainers.test_toys import make
from tests.trainers.toys.cache import CachedCLIP, ToyCache
from tests.trainers.toys.low_rank import ToyLowRank
from trainers.base import ClipTrainer, PromptTrainer
from trainers.checkpoint import load_learned
from trainers.prompted_clip import FixedTextCLIP, unit
from trainers.prompts import fill

TEXTS = [fill("a photo of a {}.", NAMES)]


class ShiftedText(FixedTextCLIP):
    """A learned shift of the text features, outside both towers."""

    def __init__(self, clip_model):
        super().__init__(clip_model, TEXTS)
        self.shift = nn.Parameter(torch.zeros(len(NAMES), clip_model.visual.output_dim))

    def compute_text_features(self):
        return unit(super().compute_text_features() + self.shift)


def test_what_is_learned_on_the_text_side_is_trained():
    model = ShiftedText(small_clip()).train()
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert model.shift.grad is not None and model.shift.grad.abs().sum() > 0
    with torch.no_grad():
        before = model.eval().text_features()
        model.shift.normal_()
        assert not torch.equal(model.text_features(), before), "features are not kept beyond a change"


def test_text_features_are_kept_where_a_method_says_that_nothing_reaches_them(monkeypatch):
    calls = []
    compute = FixedTextCLIP.compute_text_features
    monkeypatch.setattr(FixedTextCLIP, "compute_text_features", lambda self: calls.append(1) or compute(self))
    model = CachedCLIP(small_clip(), TEXTS, 4).train()
    for _ in range(3):
        model(torch.randn(2, 3, 32, 32)).sum().backward()
        with torch.no_grad():
            model.keys.add_(1)
    assert len(calls) == 1 and model.keys.grad is not None


def test_a_module_that_both_towers_share_reaches_the_text():
    """Also where its parameters are first found in the image tower."""
    model = FixedTextCLIP(small_clip(), TEXTS)
    shared = nn.Linear(64, 64)
    for tower in (model.image_encoder, model.text_encoder):
        tower.transformer.resblocks[0].mlp = nn.Sequential(tower.transformer.resblocks[0].mlp, shared)
    assert any(t is shared.weight for t in model.text_tensors())
    model.train()(torch.randn(1, 3, 32, 32))
    assert model.text_features().requires_grad


def test_dropout_in_a_tower_is_on_in_training_alone():
    model = ToyLowRank.build(CfgNode(), SimpleNamespace(classnames=NAMES), small_clip())
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=0.1)
    image = torch.randn(2, 3, 32, 32)
    model.train()
    assert not torch.equal(model.image_features(image), model.image_features(image))
    model.eval()
    assert torch.equal(model.image_features(image), model.image_features(image))


def test_no_prompts_is_not_the_towers_own_prompts():
    plain = small_clip()
    model = build("IVLP", NAMES, small_clip(), PROMPT_DEPTH_VISION=2, PROMPT_DEPTH_TEXT=2)
    image = torch.randn(2, 3, 32, 32)
    expected = unit(plain.encode_image(image))
    found = model.without_prompts(image)
    assert torch.equal(found, expected) and not found.requires_grad
    assert not torch.allclose(model.image_features(image), expected, atol=1e-3)
    texts = model.text_encoder(*text_table(plain), None)
    assert torch.equal(texts, plain.encode_text(clip.tokenize(TEXTS[0])))
    assert not torch.allclose(model.text_encoder(*text_table(plain)), texts, atol=1e-3)


def text_table(clip_model):
    texts = FixedTextCLIP(clip_model, TEXTS).texts[0]
    return texts.token_embeddings, texts.layout


def test_no_prompts_on_a_resnet():
    model = build("CoOp", NAMES, small_clip(vision=16, layers=(1, 1, 1, 1)), N_CTX=2)
    image = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.without_prompts(image), model.image_features(image))


def test_training_features_are_those_of_the_plain_tower_in_the_data_sets_order(tmp_path):
    trainer = make(ToyCache, tmp_path)
    features, labels = trainer.train_features()
    assert labels.tolist() == [item.label for item in trainer.dm.dataset.train_x]
    plain = clip.load("ViT-Micro/8", device="cpu")[0]
    expected = [unit(plain.encode_image(image)) for image in training_images(trainer)]
    torch.testing.assert_close(features, torch.cat(expected).detach(), rtol=0, atol=1e-6)


def training_images(trainer: ClipTrainer) -> list[torch.Tensor]:
    """The training images through the test transform, each (1, 3, H, W)."""
    transform = build_transform(trainer.cfg, is_train=False)
    return [transform(read_image(item.impath))[None] for item in trainer.dm.dataset.train_x]


def test_learned_parameters_in_half_precision_are_refused(tmp_path):
    class Rounded(ToyCache):
        @classmethod
        def build(cls, options, dataset, clip_model):
            model = super().build(options, dataset, clip_model)
            model.keys = nn.Parameter(model.keys.to(torch.bfloat16))
            return model

    with pytest.raises(TypeError, match=r"fp32 whatever PREC is, these are not: keys \(torch.bfloat16\)"):
        make(Rounded, tmp_path)


def test_a_module_under_two_names_is_saved_once_and_loaded():
    def made() -> FixedTextCLIP:
        model = FixedTextCLIP(small_clip(), TEXTS)
        shared = nn.Linear(64, 64)
        model.adapter = shared
        model.image_encoder.transformer.resblocks[1].mlp.add_module("shared", shared)
        return model

    model, again = made(), made()
    saved = changed_tensors(model, frozen_fingerprints(model))
    assert len(saved) == 2 and all(name.endswith(("weight", "bias")) for name in saved)
    load_learned(again, saved, "file", again.pretrained_tensors())
    assert torch.equal(again.adapter.weight, model.adapter.weight)
    assert again.adapter is again.image_encoder.transformer.resblocks[1].mlp.shared
    del saved[next(iter(saved))]
    with pytest.raises(ValueError, match=r"does not fit the model.*\n  missing"):
        load_learned(again, saved, "file", again.pretrained_tensors())


def test_a_missing_buffer_of_the_methods_own_is_an_error():
    model = CachedCLIP(small_clip(), TEXTS, 4)
    with pytest.raises(ValueError, match=r"missing values \(4, 3\)"):
        load_learned(model, {"keys": model.keys.detach()}, "file", model.pretrained_tensors())


def test_the_former_name_of_the_base_class_stays():
    assert PromptTrainer is ClipTrainer

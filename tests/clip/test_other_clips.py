"""CLIPs of open_clip and transformers give the features and tokens here that they give there."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import clip
from clip.configuration import describe
from clip.model import CLIP, from_state_dict
from clip.releases import open_clip_models
from clip.simple_tokenizer import default_bpe, read_vocabulary
from tests.clip.other_clips import (
    MEAN,
    STD,
    distance,
    images,
    open_clip_config,
    open_clip_model,
    save_open_clip,
    transformers_model,
)

TEXTS = ["a photo of a golden retriever.", "X X X X abyssinian.", "an 8-bit rendering of a ✈ and a café", ""]
TOLERANCE = 1e-5  # of the largest value of a feature: fp32, summed in another order


def assert_same_as_open_clip(theirs: nn.Module, ours: CLIP, texts: Sequence[str] = TEXTS) -> None:
    from open_clip.tokenizer import _tokenizer

    length, pixels = ours.context_length, images(ours)
    tokens = _tokenizer(list(texts), context_length=length)
    assert torch.equal(tokens.int(), clip.tokenize(texts, length))
    with torch.no_grad():
        assert distance(ours.encode_image(pixels), theirs.encode_image(pixels)) < TOLERANCE
        assert distance(ours.encode_text(tokens), theirs.encode_text(tokens)) < TOLERANCE
    assert ours.logit_scale.item() == theirs.logit_scale.item()


# Full widths with few blocks, and small images where the positions would take the time
PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ViT-B-32": ({"layers": 2}, {"layers": 2}),
    "ViT-B-16": ({"layers": 2}, {"layers": 1}),
    "ViT-L-14": ({"layers": 2, "image_size": 112}, {"layers": 1}),
    "RN50": ({"layers": [1, 1, 1, 1], "image_size": 128}, {"layers": 1}),
}


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_architectures_of_open_clip(architecture: str, tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch, a requirement of tests")
    vision, text = PUBLISHED[architecture]
    config = open_clip.get_model_config(architecture)
    config = {**config, "vision_cfg": {**config["vision_cfg"], **vision}, "text_cfg": {**config["text_cfg"], **text}}
    theirs = open_clip_model(config)
    folder = save_open_clip(theirs, config, tmp_path / architecture)
    assert_same_as_open_clip(theirs, clip.load(folder, device="cpu")[0])
    shutil.rmtree(folder)  # some hundred MB


@pytest.mark.slow
def test_a_whole_model_of_open_clip(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch, a requirement of tests")
    config = open_clip.get_model_config("ViT-B-32")
    theirs = open_clip_model(config)
    folder = save_open_clip(theirs, config, tmp_path / "whole", pickled=True)
    assert_same_as_open_clip(theirs, clip.load(folder, device="cpu")[0])
    shutil.rmtree(folder)


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("pickled", [False, True])
def test_heads_mlps_and_epsilons_come_from_the_configuration(tmp_path: Path, quick_gelu: bool, pickled: bool) -> None:
    config = open_clip_config(quick_gelu)
    theirs = open_clip_model(config)
    folder = save_open_clip(theirs, config, tmp_path / "model", pickled)
    weights = next(path for path in folder.iterdir() if path.suffix != ".json")
    for path in (folder, weights, folder / "own.pt"):
        if path.suffix == ".pt":
            weights.rename(path)
        ours, preprocess = clip.load(path, device="cpu")
        assert_same_as_open_clip(theirs, ours)
        assert (preprocess.transforms[-1].mean, preprocess.transforms[-1].std) == (MEAN, STD)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(ValueError, match=r"own.pt does not tell which activation.*MODEL.BACKBONE.ACTIVATION"):
        clip.load(folder, device="cpu")


def test_a_text_tower_of_its_own(tmp_path: Path) -> None:
    """CustomTextCLIP, which holds the same tower under text."""
    module = pytest.importorskip("open_clip.model", reason="needs open_clip_torch, a requirement of tests")
    config = open_clip_config()
    torch.manual_seed(0)
    theirs = module.CustomTextCLIP(**config).eval()
    folder = save_open_clip(theirs, {**config, "custom_text": True}, tmp_path / "model")
    assert_same_as_open_clip(theirs, clip.load(folder, device="cpu")[0])


def test_another_resolution_as_in_open_clip(tmp_path: Path) -> None:
    """open_clip interpolates a model's positions when it loads its weights into one for other images."""
    module = pytest.importorskip("open_clip.model", reason="needs open_clip_torch, a requirement of tests")
    config = open_clip_config()
    folder = save_open_clip(open_clip_model(config), config, tmp_path / "model")
    larger = open_clip_model({**config, "vision_cfg": {**config["vision_cfg"], "image_size": 80}})
    state = clip.load(folder, device="cpu")[0].state_dict()
    module.resize_pos_embed(state, larger)
    larger.load_state_dict(state)
    assert_same_as_open_clip(larger, clip.load(folder, device="cpu", resolution=80)[0])


SMALL_TEXT = {"hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL_VISION = {
    **{"hidden_size": 160, "intermediate_size": 300, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"image_size": 48, "patch_size": 16},
}
OF_TRANSFORMERS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "small": (
        {**SMALL_TEXT, "layer_norm_eps": 1e-4, "max_position_embeddings": 40},
        {**SMALL_VISION, "layer_norm_eps": 1e-3, "hidden_act": "gelu"},
        96,
    ),
    "end of text 2": ({**SMALL_TEXT, "eos_token_id": 2, "hidden_act": "gelu"}, SMALL_VISION, 96),
    "ViT-B/16, GELU": (
        {"num_hidden_layers": 2, "hidden_act": "gelu"},
        {"num_hidden_layers": 1, "hidden_act": "gelu", "patch_size": 16},
        512,
    ),
    "ViT-L/14": (
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 1},
        {
            **{"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 1},
            **{"patch_size": 14, "image_size": 112},
        },
        768,
    ),
}


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_architectures_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = transformers_model(*OF_TRANSFORMERS[name])
    theirs.save_pretrained(tmp_path / "model")
    processor = {"image_mean": MEAN, "image_std": STD}
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(processor))
    if name == "small":  # as older versions save it
        torch.save(theirs.state_dict(), tmp_path / "model" / "pytorch_model.bin")
        (tmp_path / "model" / "model.safetensors").unlink()
    ours, preprocess = clip.load(tmp_path / "model", device="cpu")
    tokens, pixels = clip.tokenize(TEXTS, ours.context_length), images(ours)
    with torch.no_grad():
        output = theirs(input_ids=tokens.long(), pixel_values=pixels)
        image, text = ours.encode_image(pixels), ours.encode_text(tokens)
        assert distance(nn.functional.normalize(image), output.image_embeds) < TOLERANCE
        assert distance(nn.functional.normalize(text), output.text_embeds) < TOLERANCE
        assert distance(ours(pixels, tokens)[0], output.logits_per_image) < TOLERANCE
    assert (preprocess.transforms[-1].mean, preprocess.transforms[-1].std) == (MEAN, STD)
    shutil.rmtree(tmp_path / "model")


@given(st.lists(st.text(max_size=80), min_size=1, max_size=3), st.sampled_from([5, 16, 77]))
@settings(max_examples=100, deadline=None)
def test_tokens_of_any_text_are_open_clips(texts: list[str], length: int) -> None:
    """Of texts that are too long, the first tokens, and end of text in the last place."""
    tokenizer = pytest.importorskip("open_clip.tokenizer", reason="needs open_clip_torch, a requirement of tests")
    expected = tokenizer._tokenizer(texts, context_length=length)
    assert torch.equal(clip.tokenize(texts, length, truncate=True), expected.int())


def test_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    """Its tokenizer repairs no broken characters and no HTML, so that these texts have neither."""
    transformers = pytest.importorskip("transformers", reason="needs transformers, a requirement of tests")
    vocabulary = read_vocabulary(default_bpe())
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary.encoder, merges=list(vocabulary.bpe_ranks))
    texts = [
        *TEXTS[:2],
        "a centered satellite photo of Annual Crop Land.",
        "  Forget-me-not,\tbird of paradise;  Boeing 737-800's  wing ",
        "a photo of a person doing Clean And Jerk, 360° (étude) № 5 naïve façade 日本語 🙂",
        "McDonnell Douglas MD-87 isn't they're I'd we've it'll 1 22 333",
    ]
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert clip.tokenize(text)[0, : len(ids)].tolist() == ids
        assert clip.tokenize(text)[0, len(ids) :].eq(0).all()


def test_every_architecture_of_open_clip_fits_or_is_refused(tmp_path: Path) -> None:
    """The shapes of those that fit, without their numbers; the reason of those that do not, by the family's mark."""
    open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch, a requirement of tests")
    path = tmp_path / "open_clip_config.json"
    marks = {  # in the name: in the message
        **{"coca": "multimodal_cfg", "CLIPA": "pool_type 'avg'", "worldwide": "facebook/xlm-v-base|google/mt5-base"},
        **{"roberta": "hf_model_name", "nllb": "hf_model_name", "mt5": "hf_model_name", "M-16-alt": "ls_init_value"},
        **dict.fromkeys(
            ("SigLIP", "convnext", "EVA", "MobileCLIP", "PE-Core", "ViTamin", "swin", "vit_"), "timm_model"
        ),
    }
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        path.write_text(json.dumps({"model_cfg": config}))
        if expected := next((message for mark, message in marks.items() if mark in name), None):
            with pytest.raises(ValueError, match=f"describes a model that does not fit: .*({expected})"):
                describe(path, lambda file: None)
            continue
        for tower in (config["vision_cfg"], config["text_cfg"]):
            tower["layers"] = 1 if isinstance(tower["layers"], int) else [1, 1, 1, 1]
        path.write_text(json.dumps({"model_cfg": config}))
        description = describe(path, lambda file: None)
        with torch.device("meta"):
            theirs = open_clip_model(config)
        ours = from_state_dict(theirs.state_dict(), copy=False, description=description)
        assert ours.activation == ("quick_gelu" if "quickgelu" in name else "gelu")
        assert ours.transformer.resblocks[0].attn.num_heads == config["text_cfg"]["heads"]
        heads = getattr(theirs.visual, "attnpool", None) or theirs.visual.transformer.resblocks[0].attn
        found = getattr(ours.visual, "attnpool", None) or ours.visual.transformer.resblocks[0].attn
        assert found.num_heads == heads.num_heads


def test_the_names_are_those_of_open_clip() -> None:
    pretrained = pytest.importorskip("open_clip.pretrained", reason="needs open_clip_torch, a requirement of tests")
    expected = {
        name: {tag: "/".join(entry["hf_hub"].split("/")[:2]) for tag, entry in tags.items()}
        for name, tags in pretrained._PRETRAINED.items()
    }
    assert open_clip_models() == expected

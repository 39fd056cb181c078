"""CLIP-LoRA against the values of an independent implementation and against its definition."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import datasets  # noqa: F401  (registers the datasets)
from clip import tokenize
from clip.transformer import Attention
from dassl.engine import build_trainer
from tests.golden import assert_close, build, check_three_steps, make_trainer, read
from tests.paths import ROOT, needs_golden
from tests.trainers.test_methods import NAMES, learned, small_clip, vit_b16
from train import parse_args, setup_cfg
from trainers.clip_lora import LowRank, LowRankAttention, LowRankCLIP, chosen_blocks
from trainers.precision import Precision
from trainers.prompted_clip import unit
from trainers.prompts import fill

GOLDEN = ["cliplora_both_qkv_r2", "cliplora_both_qkvo_r4", "cliplora_vision_qv_r2"]
BACKBONE = {"MODEL.BACKBONE.NAME": "ViT-B/16"}  # any that there is: checkpoints name it


def ours(name: str) -> str:
    """The name in our model of a tensor in the module tree of a CLIP."""
    return f"image_encoder.{name.removeprefix('visual.')}" if name.startswith("visual.") else f"text_encoder.{name}"


def golden(name: str):
    """A golden file with our model's names, and the trainer of its settings, without dropout."""
    values, meta = read(f"{name}.safetensors")
    named = {}
    for key, value in values.items():
        kind, dot, tensor = key.partition(".")
        named[f"{kind}.{ours(tensor)}" if dot else key] = value
    settings = {"ENCODER": meta["encoder"], "POSITION": meta["position"], "PARAMS": meta["params"], "R": meta["r"]}
    settings |= {"ALPHA": float(meta["alpha"]), "DROPOUT": 0.0}
    optim = {key: value for key, value in meta["optim"].items() if key != "betas"}  # the defaults
    trainer = make_trainer(
        meta | {"trainer": "CLIPLoRA", "optim": optim},
        settings=BACKBONE | {f"TRAINER.CLIPLORA.{key}": value for key, value in settings.items()},
    )
    return named, meta, trainer


@needs_golden
@pytest.mark.parametrize("name", GOLDEN)
def test_three_steps(name: str):
    values, meta, trainer = golden(name)
    assert (trainer.optim.defaults["betas"], trainer.optim.defaults["eps"]) == ((0.9, 0.999), 1e-8)
    check_three_steps(trainer, values, meta)


def test_it_learns_these_tensors():
    """2 · 2 · D for q, k and v in each of twelve blocks: 73,728 + 110,592 = 184,320."""
    names = learned(build("CLIPLoRA", NAMES, vit_b16()))
    assert sum(names.values()) == 184_320
    assert names == {
        f"{tower}.transformer.resblocks.{i}.attn.{letter}_proj.w_lora_{matrix}": 2 * width
        for tower, width in (("text_encoder", 512), ("image_encoder", 768))
        for i in range(12)
        for letter in "qkv"
        for matrix in "AB"
    }


def test_the_matrices_start_as_published():
    """A uniform within 1 / sqrt(D), B zero: the model starts as zero-shot CLIP."""
    torch.manual_seed(0)
    low = LowRank(64, 8, alpha=1.0, dropout=0.25)
    assert 0.9 / 8 < low.w_lora_A.abs().max() <= 1 / 8
    assert low.w_lora_A.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.1)
    assert not low.w_lora_B.any()


@pytest.mark.parametrize(
    ("position", "of_12", "of_24"),
    [
        ("all", range(12), range(24)),
        ("bottom", range(4), range(8)),
        ("mid", range(4, 8), range(8, 16)),
        ("up", range(8, 12), range(16, 24)),
        ("half-bottom", range(6), range(12)),
        ("half-up", range(6, 12), range(12, 24)),
        ("top3", range(9, 12), range(21, 24)),
    ],
)
def test_positions(position: str, of_12: range, of_24: range):
    assert (chosen_blocks(position, 12), chosen_blocks(position, 24)) == (of_12, of_24)


def test_a_position_without_a_block():
    with pytest.raises(ValueError, match="POSITION bottom is no block of a tower of 2 layers: choose all"):
        build("CLIPLoRA", NAMES, small_clip(), POSITION="bottom")


def test_a_resnet_can_have_them_in_the_text_tower_alone():
    resnet = small_clip(vision=16, layers=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="low-rank weights in the image tower need a ViT backbone, found a ResNet"):
        build("CLIPLoRA", NAMES, resnet)
    model = build("CLIPLoRA", NAMES, small_clip(vision=16, layers=(1, 1, 1, 1)), ENCODER="text")
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3)


def passing(dropout: float, projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "proj")) -> LowRankAttention:
    """Low-rank weights of full rank that add s x, with s = 3 / sqrt(16), to the products of a random attention."""
    torch.manual_seed(0)
    attention = LowRankAttention(Attention(16, 2), projections, rank=16, alpha=3.0, dropout=dropout)
    for name in projections:
        low = attention.get_submodule(name)
        torch.nn.init.eye_(low.w_lora_A)
        torch.nn.init.eye_(low.w_lora_B)
    return attention


def test_each_projection_draws_a_mask_of_its_own_and_the_frozen_product_none():
    attention, x, queries = passing(0.25).train(), torch.randn(2, 50, 16), torch.randn(2, 9, 16)
    frozen = Attention.project(attention, x, queries)
    added = [found - product for found, product in zip(attention.project(x, queries), frozen, strict=True)]
    added.append(attention.output(x) - attention.out_proj(x))
    masks = []
    for value, given in zip(added, (queries, x, x, x), strict=True):
        kept = value.abs() > 1e-5  # apart from the rounding of the difference
        torch.testing.assert_close(value, torch.where(kept, 0.75 * given / 0.75, 0), rtol=0, atol=1e-5)
        masks.append(kept)
    assert all(0.7 < mask.float().mean() < 0.8 for mask in masks)
    assert not any(torch.equal(masks[i], masks[j]) for i, j in ((1, 2), (1, 3), (2, 3)))


def test_without_dropout_an_evaluation_adds_all():
    attention, x = passing(0.25, ("k_proj",)).eval(), torch.randn(2, 5, 16)
    frozen = Attention.project(attention, x)
    q, k, v = attention.project(x)
    assert torch.equal(q, frozen[0]) and torch.equal(v, frozen[2])
    assert torch.equal(attention.output(x), attention.out_proj(x))
    torch.testing.assert_close(k - frozen[1], 0.75 * x, rtol=0, atol=1e-6)


def trained_by_chance(**values: object) -> LowRankCLIP:
    """A model whose B are not zero."""
    model = build("CLIPLoRA", NAMES, small_clip(), **values).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("w_lora_B"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_an_evaluation_is_that_of_merged_weights():
    """W + s B A in a plain CLIP, whose prompts are computed alone; cosines times 100."""
    model, clip_model = trained_by_chance(PARAMS=["q", "k", "v", "o"]), small_clip()
    found, plain = model.state_dict(), clip_model.state_dict()
    merged = dict(plain)
    for ours_, theirs in (
        ("text_encoder.transformer", "transformer"),
        ("image_encoder.transformer", "visual.transformer"),
    ):
        for i in range(2):
            block = f"resblocks.{i}.attn"
            added = {}
            for name in ("q_proj", "k_proj", "v_proj", "proj"):
                low = f"{ours_}.{block}.{name}.w_lora_"
                added[name] = found[f"{low}B"] @ found[f"{low}A"] / 2**0.5
            rows = torch.cat([added["q_proj"], added["k_proj"], added["v_proj"]])
            for name, more in (("in_proj_weight", rows), ("out_proj.weight", added["proj"])):
                merged[f"{theirs}.{block}.{name}"] = plain[f"{theirs}.{block}.{name}"] + more
    clip_model.load_state_dict(merged)
    image = torch.randn(2, 3, 32, 32)
    prompts = fill("a photo of a {}.", NAMES)
    text = unit(torch.cat([clip_model.encode_text(tokenize([prompt])) for prompt in prompts]))
    expected = 100 * unit(clip_model.encode_image(image)) @ text.t()
    with torch.no_grad():
        torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-3)
        assert (model(image) - trained_by_chance(PARAMS=["q"])(image)).abs().max() > 0.1


def test_in_training_no_two_prompts_have_a_token_in_common():
    """A token that prompts share would have the same dropout in all of them."""
    model = trained_by_chance()
    assert model.texts.layout.prefix_length == 5  # SOS a photo of a
    assert model.apart.prefix_length == 0
    assert model.apart.num_tokens >= sum(len(tokens) for tokens in model.apart.sequences)


def test_without_dropout_the_layouts_agree():
    model = trained_by_chance()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        torch.testing.assert_close(model.train().text_features(), model.eval().text_features(), rtol=0, atol=1e-5)
    assert build("CLIPLoRA", NAMES, small_clip(), DROPOUT=0.0).apart is None


def test_a_tower_without_learned_weights_takes_no_gradient():
    """The text features of `vision` are computed once, and the images of `text` are the pretrained tower's."""
    vision = build("CLIPLoRA", NAMES, small_clip(), ENCODER="vision").train()
    assert vision.text_features() is vision.text_features() and not vision.text_features().requires_grad
    assert not vision.frozen_images()
    text = build("CLIPLoRA", NAMES, small_clip(), ENCODER="text").train()
    assert not text.image_features(torch.randn(1, 3, 32, 32)).requires_grad and text.text_features().requires_grad
    assert text.frozen_images()


def test_lower_precisions_agree():
    image = torch.randn(3, 3, 32, 32)
    full = trained_by_chance()
    clip_model = small_clip()
    Precision("bf16", torch.device("cpu")).cast(clip_model)
    half = build("CLIPLoRA", NAMES, clip_model).eval()
    half.load_state_dict(full.state_dict())
    with torch.no_grad():
        expected = full(image) / 100
        with Precision("amp", torch.device("cpu")).autocast():
            amp = full(image)
        for logits in (half(image), amp):
            assert 0 < (logits / 100 - expected).abs().max() < 0.03
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}


def as_published(values: dict[str, Tensor], meta: dict) -> dict:
    """The golden file's final matrices as a `lora_weights.pt`."""
    towers = {"text": "text_encoder", "vision": "image_encoder"}
    chosen = list(towers) if meta["encoder"] == "both" else [meta["encoder"]]
    blocks = [f"param3.{towers[encoder]}.transformer.resblocks.{i}.attn." for encoder in chosen for i in range(3)]
    weights: dict = {}
    for j, block in enumerate(blocks):
        layer = weights.setdefault(f"layer_{j}", {})
        for key in (key for key in values if key.startswith(block)):
            projection, matrix = key.removeprefix(block).split(".")
            layer.setdefault(projection, {})[matrix] = values[key]
    return {"weights": weights, "metadata": {key: meta[key] for key in ("r", "alpha", "encoder", "params", "position")}}


@needs_golden
@pytest.mark.parametrize("name", GOLDEN)
def test_published_checkpoints_load(name: str, tmp_path: Path):
    values, meta, trainer = golden(name)
    torch.save(as_published(values, meta), tmp_path / "lora_weights.pt")
    trainer.load_model(str(tmp_path / "lora_weights.pt"))
    with torch.no_grad():
        assert_close(trainer.model.eval()(values["image"]), values["logits3"], "logits3")


@needs_golden
def test_checkpoints_have_the_published_names():
    values, _ = read("cliplora_both_qkv_r2.safetensors")
    *_, trainer = golden("cliplora_both_qkv_r2")
    root = trainer.checkpoint_root()
    names = {name for name, parameter in root.named_parameters() if parameter.requires_grad}
    assert names == {key.removeprefix("param0.") for key in values if key.startswith("param0.")}
    shapes = {name: tuple(root.get_parameter(name).shape) for name in names}
    options = trainer.cfg.TRAINER.CLIPLORA
    needed = {"ENCODER": "both", "PARAMS": ["q", "k", "v"], "R": 2}
    assert trainer.options_for(shapes, options) == needed  # no tower of 12 or 24 layers has three blocks at its start
    deep = {f"visual.transformer.resblocks.{i}.attn.proj.w_lora_A": (4, 768) for i in range(6, 12)}
    needed = {"ENCODER": "vision", "POSITION": "half-up", "PARAMS": ["o"], "R": 4}
    assert trainer.options_for(deep, options) == needed
    assert trainer.options_for({"adapter.weight": (3, 3)}, options) is None


@needs_golden
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 2}, r"alpha: 2 in the file, 1.0 here"),
        ({"encoder": "vision"}, r"low-rank weights for 6 blocks, expected 3 \(ENCODER vision, POSITION all\)"),
        ({"position": "top4"}, r"metadata.position: not a valid value, found str 'top4'"),
        ({"r": 4}, ""),
    ],
)
def test_published_files_that_do_not_fit(change: dict, message: str, tmp_path: Path):
    values, meta, trainer = golden("cliplora_both_qkv_r2")
    path = tmp_path / "lora_weights.pt"
    content = as_published(values, meta)
    content["metadata"] |= change
    if "r" in change:  # of the matrices, too
        for layer in content["weights"].values():
            for pair in layer.values():
                pair["w_lora_A"] = pair["w_lora_A"].repeat(2, 1)
                pair["w_lora_B"] = pair["w_lora_B"].repeat(1, 2)
        message = r"It fits with TRAINER.CLIPLORA.R 4$"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        trainer.load_model(str(path))


@pytest.mark.slow
def test_a_run_takes_steps_by_shots_and_its_rate_falls_with_each(tmp_path: Path):
    """lr(t) = 1e-6 + (lr - 1e-6) (1 + cos(pi t / T)) / 2 over T = 2 · 2 steps, whatever the number of images."""
    options = {"OUTPUT_DIR": tmp_path, "SEED": 1, "DATASET.NUM_SHOTS": 2, "OPTIM.STEPS_PER_SHOT": 2}
    options |= {"DATASET.SUBSAMPLE_CLASSES": "base", "DATALOADER.TRAIN_X.BATCH_SIZE": 15, "TEST.NO_TEST": True}
    argv = ["--trainer", "CLIPLoRA", "--dataset-config-file", str(ROOT / "configs/datasets/emoji.yaml")]
    argv += ["--config-file", str(ROOT / "configs/trainers/CLIPLoRA/vit_micro.yaml")]
    trainer = build_trainer(setup_cfg(parse_args([*argv, *(f"{key}={value}" for key, value in options.items())])))
    rates, step = [], trainer.forward_backward

    def observed(batch: dict) -> dict:
        rates.append(trainer.get_current_lr())
        assert len(batch["label"]) == (10 if len(rates) == 3 else 15)  # 40 images: two batches and a last one
        return step(batch)

    trainer.forward_backward = observed
    trainer.train()
    expected = [1e-6 + (2e-3 - 1e-6) * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]
    assert rates == pytest.approx(expected, rel=1e-9)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (results["epoch"], results["steps"]) == (2, 4)
